"""
A search, its curves and its model in mlflow
============================================

``mlflow.sklearn.autolog`` watches pipelines and searches of scikit-learn: a search over a
network is a run with its parameters and scores, and each of its best candidates is one
below it. ``mlflow ui --backend-store-uri sqlite:///mlflow.db`` shows them.
"""

import mlflow
import numpy as np
from mlflow.tracking import MlflowClient
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler
from skorch.callbacks import MlflowLogger

from sk_resnet import ResNetClassifier, trusted_types

mlflow.set_tracking_uri("sqlite:///mlflow.db")
X, y = load_wine(return_X_y=True, as_frame=True)
parts = train_test_split(X, y, random_state=0, stratify=y)
X_train, X_test, y_train, y_test = parts
network = ResNetClassifier(depth=4, n_estimators=1, max_epochs=10, random_state=0)

# A search. Its model is logged below, in a file without pickle.
mlflow.sklearn.autolog(log_models=False)
pipeline = make_pipeline(RobustScaler(), network)
search = GridSearchCV(pipeline, {"resnetclassifier__l2": [1e-3, 1e-2, 1e-1]}, cv=3)
with mlflow.start_run(run_name="search") as run:
    search.fit(X_train, y_train)
    mlflow.log_metric("test_accuracy", search.score(X_test, y_test))
    info = mlflow.sklearn.log_model(
        search.best_estimator_,
        name="network",
        registered_model_name="wine",
        serialization_format="skops",
        skops_trusted_types=list(trusted_types()),
    )
logged = mlflow.get_run(run.info.run_id).data
print("best l2:", logged.params["best_resnetclassifier__l2"])
print(f"accuracy of its folds: {logged.metrics['best_cv_score']:.3f}")
children = f"tags.mlflow.parentRunId = '{run.info.run_id}'"
print("candidates:", len(mlflow.search_runs(filter_string=children)))

# Anyone who reaches the registry loads the model by its name and version, as an estimator.
served = mlflow.sklearn.load_model("models:/wine/1")
np.testing.assert_array_equal(served.predict_proba(X_test), search.predict_proba(X_test))
print("the registered model predicts the same")

# Curves of one fit, by the logger of skorch.
logger = MlflowLogger(create_artifact=False, terminate_after_train=False)
network.set_params(callbacks=[logger], validation_split=0.2)
with mlflow.start_run(run_name="curves") as run:
    network.fit(X_train, y_train)
curve = MlflowClient().get_metric_history(run.info.run_id, "valid_loss")
assert [point.value for point in curve] == [row["valid_loss"] for row in network.history_]
print("epochs of the curve:", len(curve))
