"""An Optuna study on scanned digits that prunes by epochs: ``make demo-search``."""

import time

import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sk_resnet import ResNetClassifier
from sk_resnet.search import CrossValidationObjective, create_study, search_space

optuna.logging.set_verbosity(optuna.logging.WARNING)
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=600, random_state=0, stratify=y
)
model = make_pipeline(
    MinMaxScaler(),
    ResNetClassifier(8, input_shape=(1, 8, 8), max_epochs=6, batch_size=32, random_state=0),
)
space = search_space(model)
space["resnetclassifier__depth"] = optuna.distributions.IntDistribution(8, 14, step=6)
space["resnetclassifier__width"] = optuna.distributions.CategoricalDistribution([0.5, 1])
objective = CrossValidationObjective(model, X_train, y_train, space=space, cv=3)
# What is worse than three quarters of the complete trials after its first epoch is pruned.
pruner = optuna.pruners.PercentilePruner(75, interval_steps=10**6)
sampler = optuna.samplers.TPESampler(seed=0)
study = create_study(objective=objective, sampler=sampler, pruner=pruner)

print("Searching depth, width, dropout, l1, l2 and lr by 3-fold cross-validation ...")
started = time.perf_counter()
study.optimize(objective, n_trials=24, timeout=90)
complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
epochs = sum(len(trial.intermediate_values) for trial in study.trials)
print(
    f"{len(study.trials)} trials in {time.perf_counter() - started:.0f} s: "
    f"{len(complete)} complete, the others pruned; {epochs} epochs, "
    f"of {len(study.trials) * 3 * 6} without pruning"
)

names = list(space)
print("\ntrial  accuracy  " + "  ".join(f"{n.split('__')[1]:>7}" for n in names))
for trial in sorted(complete, key=lambda trial: -trial.value)[:6]:
    drawn = "  ".join(f"{trial.params[name]:7.2g}" for name in names)
    own = "  (parameters of the estimator)" if trial.number == 0 else ""
    print(f"{trial.number:5}  {trial.value:8.3f}  {drawn}{own}")

best = objective.refit(study)
print(f"\naccuracy on the test part with the best ones: {best.score(X_test, y_test):.3f}")
