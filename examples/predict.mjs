// Labels and probabilities for rows of numbers, from a classifier in a file of to_onnx:
//
//     npm install --ignore-scripts onnxruntime-node
//     node predict.mjs digits.onnx < digits.csv

import { readFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";

const rows = readFileSync(0, "utf8")
  .trim()
  .split("\n")
  .map((line) => line.split(",").map(Number));
const values = Float32Array.from(rows.flat());

const session = await InferenceSession.create(process.argv[2]);
const X = new Tensor("float32", values, [rows.length, rows[0].length]);
const { label, probabilities } = await session.run({ X });

const nClasses = probabilities.dims[1];
for (let i = 0; i < rows.length; i++) {
  const ofRow = probabilities.data.slice(i * nClasses, (i + 1) * nClasses);
  console.log(`${label.data[i]} ${Math.max(...ofRow).toFixed(6)}`);
}
