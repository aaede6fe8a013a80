"""Trainings that are steps of one network, whose slices their networks are."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sk_resnet._batches import Batch
from sk_resnet._layers import Dropout
from sk_resnet._net import make_optimizer
from sk_resnet._network import ResidualNetwork, overwriting_relus
from sk_resnet._optim import SCHEDULES
from sk_resnet._plan import Execution, Recipe
from sk_resnet._record import recorded
from sk_resnet._run import autocast
from sk_resnet._snapshot import generators, set_generators, skip_steps, state_by_name
from sk_resnet._surgery import part, slice_of, stacked
from sk_resnet._training import Member

# Share of a group that must have left before the others are moved together: until then
# their slices are computed in vain, which is cheaper.
LEFT_SHARE = 1 / 8


@dataclass
class _Span:
    """Neighbours in a group that share all rates and penalties, and so an optimizer."""

    start: int
    stop: int
    optimizer: Optimizer
    scheduler: Any
    slices: dict[str, Tensor]


@dataclass(frozen=True)
class Copies:
    """What the steps of an epoch change, as it was before them."""

    weights: dict[str, Tensor]
    averages: list[dict[str, dict[str, Any]]]
    generators: list[dict[str, Any]]


class Group:
    """Members that train as one network, whose tensors those of theirs are slices of.

    Callbacks may therefore read and write the networks of the members between epochs.
    """

    def __init__(self, members: list[Member], execution: Execution) -> None:
        # Neighbours share an optimizer, and step together where their last batches differ.
        self.members = sorted(members, key=_order)
        self.execution, self.device = execution, execution.device
        recipe = self.members[0].recipe
        self.n_epochs, self.n_batches = recipe.n_epochs, len(self.members[0].batches)
        earlier = [state_by_name(member.net) for member in self.members]
        self._gather()
        self.spans: list[_Span] = []
        for key, found in groupby(enumerate(self.members), lambda pair: _rates(pair[1])):
            places = [place for place, _ in found]
            self.spans.append(self._span(key, places[0], places[-1] + 1, earlier))

    def _span(
        self, recipe: Recipe, start: int, stop: int, earlier: list[dict[str, Any]]
    ) -> _Span:
        slices = self._slices(start, stop)
        n = stop - start
        optimizer = make_optimizer(
            recipe, self.network, slices, device=self.device, members=n
        )
        for name, w in slices.items():
            if states := [state[name] for state in earlier[start:stop] if name in state]:
                assert len(states) == n, "members without running averages among others"
                optimizer.state[w] = _joined(states)
        scheduler = SCHEDULES[recipe.schedule](optimizer, self.n_epochs * self.n_batches)
        own = self.members[start:stop]
        for member in own:  # all of them with one rate
            if member.is_training and member.lr is not None:
                n_steps = member.n_done * self.n_batches
                skip_steps(scheduler, optimizer, n_steps, member.lr)
        return _Span(start, stop, optimizer, scheduler, slices)

    # Tensors

    def _gather(self) -> None:
        """Make one network of those of the members, and theirs slices of it."""
        self._released: set[Member] = set()
        networks = [member.net.module_ for member in self.members]
        whole = stacked(networks)
        if self.device.type == "cuda" and whole.spec.n_dims < 3:
            whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        state = whole.state_dict()
        # Their counters are one, which is none of those that ended in an earlier run.
        going_on = [i for i, member in enumerate(self.members) if member.is_training]
        for name, w in networks[going_on[0]].state_dict().items():
            if w.ndim == 0:
                state[name].copy_(w)
        for i, network in enumerate(networks):
            # Not load_state_dict, which takes as long as several steps.
            for name, w in network.state_dict(keep_vars=True).items():
                if w.ndim or i in going_on:
                    w.data = slice_of(state[name], len(networks), i, i + 1)
        self.network = whole
        self._parts = {(0, len(networks)): self._trainable(whole, self.members)}
        self._steps: dict[Any, Callable[..., None]] = {}
        n_outputs = whole.spec.n_outputs
        size = 2 * self.members[0].recipe.batch_size  # the last batch may take in a tail
        self._outputs = torch.empty(len(networks), size, n_outputs, device=self.device)
        self._losses = torch.zeros(len(networks), device=self.device)

    def _trainable(
        self, network: ResidualNetwork, members: list[Member]
    ) -> ResidualNetwork:
        for layer in network.modules():
            if isinstance(layer, Dropout):
                layer.generators = [member.net.noise for member in members]
        for relu in overwriting_relus(network):  # nobody else sees this network
            relu.inplace = True
        return network.train()

    def _part(self, start: int, stop: int) -> ResidualNetwork:
        """Network of some of the members."""
        if (start, stop) not in self._parts:
            found = part(self.network, start, stop)
            members = self.members[start:stop]
            self._parts[start, stop] = self._trainable(found, members)
        return self._parts[start, stop]

    def _slices(self, start: int, stop: int) -> dict[str, Tensor]:
        n = len(self.members)
        return {
            name: slice_of(w.detach(), n, start, stop)
            for name, w in self.network.named_parameters()
        }

    def drop_ended(self, training: list[Member]) -> None:
        """Let members go whose training has ended; move the others where it pays."""
        n, kept = len(self.members), [m.is_training for m in self.members]
        for member in self.members:
            if not member.is_training and member not in self._released:
                self._release(member)
        if not training or n - len(training) < max(1, LEFT_SHARE * n):
            return
        self.members = training
        self._gather()
        spans, start = [], 0
        for span in self.spans:
            of_span = torch.tensor(kept[span.start : span.stop], device=self.device)
            stop = start + int(of_span.sum())
            if stop > start:
                spans.append(self._shortened(span, start, stop, of_span))
            start = stop
        self.spans = spans

    def _shortened(self, span: _Span, start: int, stop: int, kept: Tensor) -> _Span:
        """The span without the members that left, with its optimizer and schedule."""
        slices = self._slices(start, stop)
        state = span.optimizer.state
        moved = {id(w): slices[name] for name, w in span.slices.items()}
        for name, w in span.slices.items():
            if w in state:
                state[slices[name]] = {
                    key: _selected(value, kept) for key, value in state.pop(w).items()
                }
        for group in span.optimizer.param_groups:
            group["params"] = [moved[id(w)] for w in group["params"]]
            group["members"] = stop - start
        return replace(span, start=start, stop=stop, slices=slices)

    def _release(self, member: Member) -> None:
        """Give a member tensors and an optimizer of its own."""
        self._released.add(member)
        network = member.net.module_
        states = self._optimizer_state(member)
        for w in network.state_dict(keep_vars=True).values():
            w.data = w.data.clone()
        # Not to continue with, or they would have it all the time.
        member.net.__dict__.pop("optimizer_", None)
        member.net.make_optimizer()
        for name, w in network.named_parameters():
            if name in states:
                member.net.optimizer_.state[w] = states[name]

    def write_due(
        self, by_member: list[Member], n_done: int, *, is_last: bool = False
    ) -> None:
        """Write all checkpoints, behind so many epochs, when the time of one has come.

        Once several fits have been written together, so is their last epoch: a fit that has
        ended could not go on with the others.
        """
        given = [m.progress.checkpoint for m in by_member if m.progress is not None]
        every = {id(checkpoint): checkpoint for checkpoint in given}
        ends_together = is_last and len(every) > 1
        is_due = any(
            checkpoint.is_due() or (ends_together and checkpoint.is_written)
            for checkpoint in every.values()
        )
        # Other networks of an ensemble may train on, or these when they get more time.
        goes_on = any(
            checkpoint.is_paused
            or checkpoint.n_networks > sum(one is checkpoint for one in given)
            for checkpoint in every.values()
        )
        if is_due or (is_last and goes_on):
            self.keep(by_member, [m for m in by_member if m.is_training], n_done)
        if is_due:
            first, *others = every.values()
            first.write(others)

    def keep(self, by_member: list[Member], going_on: list[Member], n_done: int) -> None:
        """Bring what is reached behind so many epochs into the checkpoints."""
        rates = dict(zip(self.members, self.rates(), strict=True))
        for member in by_member:
            if member.progress is None:
                continue
            if member in going_on:
                member.keep(self._optimizer_state(member), rates[member])
            state = member.progress.state
            if state is not None and state.has_ended:
                state.values["is_present"] = member in rates
                # Its batches were still drawn while it had a place.
                state.arrays.update(generators(member.net))
                state.values["n_done"] = n_done

    def _optimizer_state(self, member: Member) -> dict[str, dict[str, Any]]:
        """What the optimizer holds of a member, by the names of its parameters."""
        place = self.members.index(member)
        span = next(span for span in self.spans if span.start <= place < span.stop)
        n, at = span.stop - span.start, place - span.start
        return {
            name: {
                key: _own(value, n, at) for key, value in span.optimizer.state[w].items()
            }
            for name, w in span.slices.items()
            if span.optimizer.state.get(w)
        }

    def dissolve(self) -> None:
        """Give every member its own."""
        for member in self.members:
            if member not in self._released:
                self._release(member)
        self._steps.clear()  # which hold the group

    # The way back, where an epoch does not come to its end

    def copies(self) -> Copies:
        """Copy what the steps of an epoch change."""
        return Copies(
            weights={k: w.clone() for k, w in self.network.state_dict().items()},
            averages=[_averages(span) for span in self.spans],
            generators=[generators(member.net) for member in self.members],
        )

    def put_back(self, copies: Copies) -> None:
        """Undo the steps since then; nothing but `dissolve` may follow."""
        for name, w in self.network.state_dict().items():
            w.copy_(copies.weights[name])
        for span, averages in zip(self.spans, copies.averages, strict=True):
            span.optimizer.state.clear()
            for name, of in averages.items():
                span.optimizer.state[span.slices[name]] = of
        for member, states in zip(self.members, copies.generators, strict=True):
            set_generators(member.net, states)

    # Training

    def rates(self) -> list[float]:
        """Learning rate of each member."""
        found = [float(span.optimizer.param_groups[0]["lr"]) for span in self.spans]
        sizes = [span.stop - span.start for span in self.spans]
        return [lr for lr, n in zip(found, sizes, strict=True) for _ in range(n)]

    def train(self, check: Callable[[], None]) -> list[list[float]]:
        """Train for an epoch; loss and sums of each member, for a mean weight of 1."""
        if not self.network.training:
            self.network.train()
        self._losses.zero_()
        outputs = []
        epoch = _Epoch(self.members)
        for bounds, inputs in epoch.steps():
            self._step_for(bounds, inputs[0].shape[1])(*inputs)
            for span in self.spans:
                span.scheduler.step()
            # Scores are taken at the end: small networks feel each operation of a step.
            longest = max(len(x[0]) for x in inputs)
            outputs.append(self._outputs[:, :longest].clone())
            check()
        return epoch.means(self._losses, outputs)

    def _step_for(self, bounds: list[tuple[int, int]], size: int) -> Callable[..., None]:
        """Step for neighbours with batches of one size, the first of which is given."""
        key = tuple(bounds), size
        if key not in self._steps:
            self._steps[key] = self._recorded(bounds, is_last=len(self._steps) > 0)
        return self._steps[key]

    def _recorded(
        self, bounds: list[tuple[int, int]], *, is_last: bool
    ) -> Callable[..., None]:
        networks = [self._part(start, stop) for start, stop in bounds]

        def step(*inputs: Tensor) -> None:
            self._step(bounds, networks, inputs)

        n_steps = self.n_epochs * (1 if is_last else self.n_batches)
        return recorded(
            step,
            [group for span in self.spans for group in span.optimizer.param_groups],
            device=self.device,
            n_steps=n_steps,
            generators=[member.net.noise for member in self.members],
        )

    def _step(
        self,
        bounds: list[tuple[int, int]],
        networks: list[ResidualNetwork],
        inputs: Sequence[Tensor],
    ) -> None:
        self._gradients(bounds, networks, inputs)
        grads = [
            [w.grad for w in of_part]
            for of_part in zip(*(list(n.parameters()) for n in networks), strict=True)
        ]
        whole = [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in grads]
        sizes = [span.stop - span.start for span in self.spans]
        names = [name for name, _ in self.network.named_parameters()]
        for name, grad in zip(names, whole, strict=True):
            assert grad is not None
            one = len(grad) // len(self.members)
            split = grad.split([one * n for n in sizes])
            for span, own in zip(self.spans, split, strict=True):
                span.slices[name].grad = own
        for span in self.spans:
            span.optimizer.step()
            span.optimizer.zero_grad()
        for network in networks:
            network.zero_grad()

    def _gradients(
        self,
        bounds: list[tuple[int, int]],
        networks: list[ResidualNetwork],
        inputs: Sequence[Tensor],
    ) -> None:
        for i, ((start, stop), network) in enumerate(zip(bounds, networks, strict=True)):
            x, y, weight = inputs[3 * i : 3 * i + 3]
            outputs = self._forward(network, x)
            losses = self._training_losses(self.members[start:stop], outputs, y)
            n = x.shape[1]
            loss = (losses * (weight / n)).sum(1)
            loss.sum().backward()
            self._losses[start:stop] += loss.detach() * n
            self._outputs[start:stop, :n].copy_(outputs.detach())

    def _forward(self, network: ResidualNetwork, x: Tensor) -> Tensor:
        bfloat16 = self.execution.bfloat16
        if network.spec.members == 1:
            return autocast(network, x[0], bfloat16=bfloat16).unsqueeze(0)
        return autocast(network, x, bfloat16=bfloat16)

    def _training_losses(self, members: list[Member], outputs: Tensor, y: Tensor) -> Tensor:
        """Losses of (members, n) samples; neighbours with one kind of loss at once."""
        losses, place = [], 0
        for _, found in groupby(members, lambda member: member.target.loss_key):
            neighbours = list(found)
            own = slice(place, place + len(neighbours))
            place = own.stop
            target = neighbours[0].target_on_device
            flat = target.training_losses(outputs[own].flatten(0, 1), y[own].flatten(0, 1))
            losses.append(flat.view(len(neighbours), -1))
        return torch.cat(losses) if len(losses) > 1 else losses[0]

    # Validation

    @torch.no_grad()
    def validate(self, check: Callable[[], None]) -> list[list[float]]:
        """Loss and sums of each member's validation set; nothing for those without."""
        if all(member.validation is None for member in self.members):
            return [[] for _ in self.members]
        self.network.eval()
        totals: list[Any] = [0.0] * len(self.members)
        empty: Iterator[Batch] = iter(())
        every = [m.validation if m.validation is not None else empty for m in self.members]
        for batches in zip_longest(*every):
            samples = [None if batch is None else batch[0] for batch in batches]
            outputs = self._forward(self.network, _padded(samples))
            for i, batch in enumerate(batches):
                if batch is not None:
                    totals[i] = totals[i] + self._validation_sums(i, batch, outputs[i])
            check()
        return [
            (total / len(member.validation.dataset)).tolist() if member.validation else []
            for member, total in zip(self.members, totals, strict=True)
        ]

    def _validation_sums(self, place: int, batch: Batch, outputs: Tensor) -> Tensor:
        target, (_, y) = self.members[place].target_on_device, batch
        outputs = outputs[: len(y)]
        loss = target.losses(outputs, y).dot(batch.weight)
        return target.sums(loss, outputs, y, batch.weight)


class _Epoch:
    """Steps of all members for an epoch, each in an order of its own."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        # y and weights of each member, by batch or at once
        self.encoded: list[list[tuple[Tensor, Tensor]]] = [[] for _ in members]

    def steps(self) -> Iterator[tuple[list[tuple[int, int]], list[Tensor]]]:
        """Neighbours (start, stop) with batches of one size; their samples, y and weights.

        Batches that are slices are cut from those of all members at once: one by one they
        would take as long as a fifth of the step of a small network.
        """
        batches = [member.batches for member in self.members]
        if all(of_member.are_slices for of_member in batches):
            wholes = [of_member.whole() for of_member in batches]
            self._keep(wholes)
            tensors = [_padded(parts) for parts in _parts(wholes)]
            for bounds in zip(*(of_member.bounds for of_member in batches), strict=True):
                runs = _runs(bounds)
                yield runs, [x[a:b, slice(*bounds[a])] for a, b in runs for x in tensors]
            return
        for own in zip(*batches, strict=True):
            self._keep(own)
            runs = _runs([len(batch[1]) for batch in own])
            yield runs, [torch.stack(x) for a, b in runs for x in _parts(own[a:b])]

    def _keep(self, batches: Sequence[Batch]) -> None:
        for encoded, batch in zip(self.encoded, batches, strict=True):
            encoded.append((batch[1], batch.weight))

    def means(self, losses: Tensor, outputs: Sequence[Tensor]) -> list[list[float]]:
        """Loss and sums of each member, over the number of its samples.

        `outputs` (members, batch, n_outputs) are those of each step.
        """
        in_order = torch.cat(tuple(outputs), dim=1)  # all batches but the last are as long
        found = []
        for i, member in enumerate(self.members):
            y, weight = self.encoded[i][0]
            if len(self.encoded[i]) > 1:
                y, weight = map(torch.cat, zip(*self.encoded[i], strict=True))
            own = in_order[i, : len(y)]
            sums = member.target_on_device.sums(losses[i], own, y, weight)
            found.append(sums / len(y))
        return [means.tolist() for means in found]


def _runs(values: Sequence[Any]) -> list[tuple[int, int]]:
    """Start and stop of neighbours that are equal."""
    runs = []
    for _, places in groupby(range(len(values)), values.__getitem__):
        start, *others = places
        runs.append((start, start + 1 + len(others)))
    return runs


def _parts(batches: Sequence[Batch]) -> Iterator[tuple[Tensor, ...]]:
    """Samples, y and weights of several batches."""
    return zip(*((batch[0], batch[1], batch.weight) for batch in batches), strict=True)


def _averages(span: _Span) -> dict[str, dict[str, Any]]:
    """Copies of what the optimizer of a span holds, by the names of parameters."""
    return {
        name: {key: copy.deepcopy(value) for key, value in span.optimizer.state[w].items()}
        for name, w in span.slices.items()
        if span.optimizer.state.get(w)
    }


def _order(member: Member) -> tuple[Any, ...]:
    recipe = member.recipe
    return (
        len(member.batches.dataset),
        recipe.lr,
        recipe.momentum,
        recipe.l2,
        recipe.l2_on,
        recipe.l1,
        recipe.l1_structure,
        recipe.keep_zeros,
        str(member.target.loss_key),
    )


def _rates(member: Member) -> Recipe:
    """Recipe of a member as far as its optimizer depends on it."""
    return replace(member.recipe, augmentations=())


def _padded(parts: Sequence[Tensor | None]) -> Tensor:
    """Values of all members; those that have fewer, or none, get zeros behind."""
    given = [x for x in parts if x is not None]
    size = max(len(x) for x in given)
    values = given[0].new_zeros(len(parts), size, *given[0].shape[1:])
    for row, x in zip(values, parts, strict=True):
        if x is not None:
            row[: len(x)] = x
    return values


def _joined(states: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: torch.cat([state[key] for state in states])
        if isinstance(value, Tensor) and value.ndim
        else (value.clone() if isinstance(value, Tensor) else value)
        for key, value in states[0].items()
    }


def _selected(value: Any, kept: Tensor) -> Any:
    """Slices of the members that are kept in a state of an optimizer."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return value.unflatten(0, (len(kept), -1))[kept].flatten(0, 1)


def _own(value: Any, n_members: int, place: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    return slice_of(value, n_members, place, place + 1).clone()
