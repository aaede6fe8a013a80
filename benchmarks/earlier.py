"""The package as it was at an earlier commit, for scripts that compare with it."""

import io
import os
import subprocess
import tarfile

from results import ROOT


def code_of(ref, folder):
    """Put the package of a commit into a folder."""
    command = ["git", "archive", "--format=tar", ref, "sk_resnet"]
    packed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def environment(tree):
    """That of this process, with the package in a tree, one thread and no GPU."""
    places = filter(None, [str(tree), os.environ.get("PYTHONPATH")])
    settings = {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    return os.environ | settings | {"CUDA_VISIBLE_DEVICES": ""}
