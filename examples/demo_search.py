"""An Optuna study over scanned digits, with pruning by epochs: ``make demo-search``."""

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
study = create_study(
    sampler=optuna.samplers.TPESampler(seed=0),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
)

started = time.perf_counter()
study.optimize(objective, n_trials=14, timeout=90)
print(f"{len(study.trials)} trials in {time.perf_counter() - started:.0f} s")

names = list(space)
print(
    "trial  state     score  epochs  " + "  ".join(f"{n.split('__')[1]:>8}" for n in names)
)
for trial in sorted(study.trials, key=lambda t: -(t.value or 0))[:6]:
    drawn = "  ".join(f"{trial.params.get(name, 0):8.2g}" for name in names)
    epochs = len(trial.intermediate_values)
    state = trial.state.name.lower()
    print(f"{trial.number:5}  {state:<9} {trial.value or 0:5.3f}  {epochs:6}  {drawn}")
n_pruned = sum(trial.state.name == "PRUNED" for trial in study.trials)
print(f"{n_pruned} trials were pruned before their last epoch")

best = objective.refit(study)
print(f"accuracy on the test part: {best.score(X_test, y_test):.3f}")
