"""Each attack does what its formula says, to whom it shall, and to nothing else."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal import cli
from shoal.clients.runtime import ClientRuntime
from shoal.common.config import AttackConfig
from shoal.common.config.cross_checks import pilot_problems
from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError
from shoal.common.origin import Origin
from shoal.common.schema import Column, InputSpec, Schema
from shoal.common.seeds import generator
from shoal.simulations import datasets
from shoal.simulations.attacks import ATTACKS, check
from shoal.simulations.attacks.adversary import SimulatedAdversary, make_adversary, malicious_clients
from shoal.simulations.attacks.attack import Attack, AttackContext
from shoal.simulations.attacks.catalog import check_schema
from shoal.simulations.attacks.colluding import Alie, MinMax, z_max
from shoal.simulations.attacks.forging import FreeRider, Gaussian, Scaling, SignFlip
from shoal.simulations.attacks.poisoning import Backdoor, LabelFlip
from shoal.simulations.attacks.trigger import mark
from shoal.simulations.baselines import PooledRuntime
from shoal.simulations.checks.scenario import validate

SPEC = InputSpec("vector", (4,))
SCENE = AttackContext(clients=10, malicious=2, classes=3)
ORIGIN = Origin(seed=1, dispatch=4, client=7)
UPDATES = np.array([[1.0, -2.0], [3.0, 2.0]])


def forge(attack: Attack, updates: np.ndarray = UPDATES) -> list[float]:
    before = updates.copy()
    found = attack.forge(updates, SCENE, ORIGIN)
    np.testing.assert_array_equal(updates, before)
    return [float(v) for v in found]


# --- what is sent


def test_sign_flip_scaling_and_backdoor_scale_the_client_s_own_update() -> None:
    assert forge(SignFlip()) == [-1.0, 2.0]
    assert forge(SignFlip(2.5)) == [-2.5, 5.0]
    assert forge(Scaling(4)) == [4.0, -8.0]
    assert forge(Scaling()) == [10.0, -20.0]  # as many times as there are clients in a round
    assert forge(Backdoor(factor=3)) == [3.0, -6.0]
    assert forge(LabelFlip()) == [1.0, -2.0]  # does its harm before


def test_a_scaled_update_replaces_the_model() -> None:
    """Nine clients stay at 0, one sends 10 times its update u: the mean of ten is u."""
    replaced = np.array([forge(Scaling()), *[[0.0, 0.0]] * 9]).mean(axis=0)
    assert replaced.tolist() == [1.0, -2.0]


def test_noise_is_the_clients_own_and_of_the_size_that_is_asked_for() -> None:
    zeros = np.zeros((1, 20_000))
    sent = Gaussian(2.0).forge(zeros, SCENE, ORIGIN)
    # the standard deviation of n draws has a standard error of 2 / √(2n) = 0.01
    assert sent.std() == pytest.approx(2.0, abs=0.05)
    assert sent.mean() == pytest.approx(0.0, abs=0.07)
    expected = generator(1, "attack", dispatch=4, client=7).standard_normal(20_000)
    np.testing.assert_array_equal(sent, 2.0 * expected)
    # a free rider's noise in round 4 is 0.1 · 4^-2
    np.testing.assert_allclose(FreeRider(0.1, 2.0).forge(zeros, SCENE, ORIGIN), 0.1 / 16 * expected)


def test_alie_by_hand() -> None:
    """Mean (2, 0), standard deviation (1, 2): at z = 1.5 it is (0.5, -3)."""
    assert forge(Alie(z=1.5)) == pytest.approx([0.5, -3.0])
    assert forge(Alie(z=1.5), UPDATES[:1]) == [1.0, -2.0]  # alone there is no spread


def test_z_max_of_the_paper() -> None:
    """n = 50, m = 24: s = 26 - 24 = 2 supporters, Φ(z) = (26 - 2) / 26 = 0.923, z = 1.43.

    n = 10, m = 2: s = 6 - 2 = 4, (8 - 4) / 8 = ½, z = 0. Where more than half are malicious s is held at 1.
    """
    z = z_max(50, 24)
    assert z == pytest.approx(1.426, abs=1e-3)
    assert 0.5 * (1 + math.erf(z / math.sqrt(2))) == pytest.approx(24 / 26)
    assert z_max(10, 2) == 0.0
    assert z_max(10, 4) == pytest.approx(0.431, abs=1e-3)  # s = 2: (6 - 2) / 6
    assert z_max(20, 14) == pytest.approx(0.967, abs=1e-3)  # (6 - 1) / 6


def test_min_max_goes_to_the_edge_and_no_further() -> None:
    """Updates 0, 2 and 4 on a line: mean 2, standard deviation σ = √(8/3), diameter 4.

    mean - γσ may be 4 from the update at 4, that is at 0: γ = 2 / σ.
    """
    assert forge(MinMax(), np.array([[0.0], [2.0], [4.0]])) == pytest.approx([0.0], abs=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(20):
        updates = rng.normal(size=(5, 30)) * rng.uniform(0.1, 10, 30)
        sent = np.array(forge(MinMax(), updates))
        diameter = max(np.linalg.norm(a - b) for a in updates for b in updates)
        furthest = max(np.linalg.norm(sent - u) for u in updates)
        assert furthest == pytest.approx(diameter)  # a larger γ would break the rule
    assert forge(MinMax(), UPDATES[:1]) == [1.0, -2.0]


# --- what is trained on


def rows(n: int = 9) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(4.0 * n, dtype=np.float32).reshape(n, 4), (np.arange(n) % 3).astype(np.int32)


def poison(
    attack: Attack, context: AttackContext = SCENE, y: np.ndarray | None = None
) -> tuple[Any, Any, Any, Any]:
    x, labels = rows()
    labels = labels if y is None else y
    kept = x.copy(), labels.copy()
    new_x, new_y = attack.poison(x, labels, SPEC, context, np.random.default_rng(3))
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(labels, kept[1])
    assert new_y.dtype == labels.dtype
    assert new_x.dtype == x.dtype
    return x, labels, new_x, new_y


def test_label_flip() -> None:
    _, y, _, flipped = poison(LabelFlip())
    assert flipped.tolist() == [2 - k for k in y]
    _, y, _, flipped = poison(LabelFlip(source=1, target=0))
    assert flipped.tolist() == [0 if k == 1 else k for k in y]
    # a regression: 1, 2, 5 become 5, 4, 1
    numbers = np.array([1.0, 2.0, 5.0] * 3, np.float32)
    regression = AttackContext(10, 2, 0)
    assert poison(LabelFlip(), regression, numbers)[3].tolist() == [5.0, 4.0, 1.0] * 3


def test_a_backdoor_marks_its_share_of_the_rows_and_no_others() -> None:
    x, y, new_x, new_y = poison(Backdoor(target=2, share=0.5, size=2, value=7.0))
    marked = (new_x[:, :2] == 7.0).all(axis=1)
    assert marked.sum() == 4  # ⌊0.5 · 9⌋
    assert (new_y[marked] == 2).all()
    np.testing.assert_array_equal(new_x[marked, 2:], x[marked, 2:])
    np.testing.assert_array_equal(new_x[~marked], x[~marked])
    np.testing.assert_array_equal(new_y[~marked], y[~marked])


def test_the_trigger_of_each_modality() -> None:
    image = mark(np.zeros((1, 4, 4, 1), np.float32), InputSpec("image", (4, 4, 1)), 2, 9.0)
    assert image[0, :, :, 0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    words = mark(np.array([[5, 6, 0]], np.int32), InputSpec("tokens", (3,), 50), 1, 9.0)
    assert words.tolist() == [[49, 6, 0]]
    steps = mark(np.zeros((1, 3, 2), np.float32), InputSpec("sequence", (3, 2)), 1, -1.5)
    assert steps.tolist() == [[[-1.5, -1.5], [0, 0], [0, 0]]]
    assert mark(np.zeros((1, 2)), InputSpec("vector", (2,)), 5, 3.0).tolist() == [[3.0, 3.0]]


# --- who is malicious


def test_who_is_malicious_follows_from_the_seed() -> None:
    assert malicious_clients(1, 10, 0.3) == malicious_clients(1, 10, 0.3)
    drawn = [malicious_clients(seed, 10, 0.3) for seed in range(400)]
    assert {len(d) for d in drawn} == {3}
    counts = np.bincount([c for d in drawn for c in d], minlength=10)
    # each client in 0.3 of 400 draws: 120, standard deviation √(400 · 0.3 · 0.7) = 9.2
    assert (abs(counts - 120) < 5 * 9.2).all()


@pytest.mark.parametrize(("clients", "fraction", "count"), [(10, 0.05, 1), (10, 0.39, 3), (100, 0.29, 29)])
def test_how_many_are_malicious(clients: int, fraction: float, count: int) -> None:
    assert len(malicious_clients(7, clients, fraction)) == count


def test_only_malicious_clients_do_anything() -> None:
    adversary = SimulatedAdversary(Backdoor(), frozenset({7}), SCENE)
    x, y = rows()
    for client, same in ((6, True), (7, False)):
        origin = Origin(1, 1, client)
        found = adversary.poisoned(x, y, SPEC, origin)
        assert (found[0] is x) == same
    flips = SimulatedAdversary(SignFlip(), frozenset({7}), SCENE)
    learnt = [np.full((2, 2), 0.5, np.float32), np.array(-1.0, np.float32)]
    honest = flips.altered(learnt, Origin(1, 1, 6), lambda clients: [])
    assert [sent is own for sent, own in zip(honest, learnt, strict=True)] == [True, True]
    sent = flips.altered(learnt, Origin(1, 1, 7), lambda clients: [])
    assert sent[0].tolist() == [[-0.5, -0.5], [-0.5, -0.5]]
    assert float(sent[1]) == 1.0
    assert [(a.shape, a.dtype) for a in sent] == [(a.shape, a.dtype) for a in learnt]


def test_colluders_are_worked_out_once_a_dispatch_and_process() -> None:
    adversary, asked = SimulatedAdversary(Alie(z=1.0, colluders=2), frozenset({3, 5, 9}), SCENE), []

    def honest(clients: Sequence[int]) -> list[list[np.ndarray]]:
        asked.append(list(clients))
        return [[np.array([float(c)], np.float32)] for c in clients]

    own = [np.ones(1, np.float32)]
    sent = [adversary.altered(own, Origin(1, 1, c), honest)[0].tolist() for c in (3, 9)]
    assert sent == [[3.0], [3.0]]  # of 3 and 5: mean 4, standard deviation 1
    adversary.altered(own, Origin(1, 2, 3), honest)
    adversary.altered(own, Origin(1, 2, 9), honest)
    assert asked == [[3, 5]] * 2
    # where no colluder can train, an attacker knows only its own update
    found = adversary.altered(own, Origin(1, 3, 3), lambda clients: [])
    assert found[0].tolist() == [1.0]


# --- names and arguments


@pytest.mark.parametrize("name", ATTACKS)
def test_the_table_has_the_arguments_and_defaults_of_the_class(name: str) -> None:
    parameters = inspect.signature(ATTACKS[name].kind).parameters
    listed = {n: a.default for n, a in ATTACKS[name].arguments.items()}
    assert listed == {n: p.default for n, p in parameters.items()}
    for argument in ATTACKS[name].arguments.values():
        assert argument.default is None or argument.fits(argument.default)


@pytest.mark.parametrize(
    ("kind", "args", "expected"),
    [
        ("backdor", {}, 'Did you mean "backdoor"?'),
        ("none", {"factor": 2}, "factor without an attack"),
        ("sign-flip", {"factr": 2}, 'Did you mean "factor"?'),
        ("sign-flip", {"factor": 0}, "attack.args.factor: expected a number above 0, got 0"),
        ("backdoor", {"share": 1.5}, "above 0 and at most 1, got 1.5"),
        ("alie", {"colluders": 2.5}, "a whole number of at least 1, got 2.5"),
        ("gaussian", {"stddev": "much"}, "got 'much'"),
    ],
)
def test_what_is_wrong_is_said(kind: str, args: dict[str, Any], expected: str) -> None:
    found = check(AttackConfig(kind=kind, args=args))
    assert len(found) == 1
    assert expected in found[0]


def test_a_right_attack_has_no_problem() -> None:
    assert check(AttackConfig()) == []
    for name in ATTACKS:
        assert check(AttackConfig(kind=name)) == []


def test_what_does_not_fit_the_data_is_said() -> None:
    columns = (Column("x", "numeric"),)
    three = Schema(columns, "multiclass", ("a", "b", "c"), "y")
    numbers = Schema(columns, "regression", (), "y")
    assert "needs classes" in check_schema(AttackConfig(kind="backdoor"), numbers)[0]
    assert check_schema(AttackConfig(kind="label-flip"), numbers) == []
    wrong = AttackConfig(kind="backdoor", args={"target": 3})
    assert check_schema(wrong, three) == ["attack.args.target = 3: expected a class from 0 to 2"]


def test_validation_finds_it_without_and_with_the_data() -> None:
    shallow = load_scenario("digits", ["attack.kind=sgn-flip"])
    assert 'Did you mean "sign-flip"?' in validate(shallow, deep=False)[0]
    deep = load_scenario("digits", ["attack.kind=backdoor", "attack.args={target=12}"])
    assert validate(deep, deep=False) == []
    assert "expected a class from 0 to 9" in validate(deep, deep=True)[0]
    with pytest.raises(ConfigError, match="class from 0 to 9"):
        make_adversary(deep, datasets.load_population(deep))


@pytest.mark.parametrize(
    "command",
    [
        ("client", "digits", "--server", "127.0.0.1:1", "--data", "x.csv", "--schema", "y.json"),
        ("serve", "digits", "--schema", "y.json", "--client", "north"),
    ],
)
def test_a_pilot_has_no_attack(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert pilot_problems(load_scenario("digits")) == []
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--insecure", "--set", "attack.kind=sign-flip"])
    assert caught.value.code == ConfigError.exit_code
    assert "attacks run in simulations only, never at a real site" in capsys.readouterr().err


def test_a_real_site_s_resident_plays_no_attack() -> None:
    """Even if a scenario with one got so far: only `PooledRuntime`, the simulation's, has an adversary."""
    scenario = load_scenario("digits", ["attack.kind=label-flip"])
    population = datasets.load_population(scenario)
    assert ClientRuntime(scenario, population).adversary is None
    assert PooledRuntime(scenario, population).adversary is not None


# --- documentation


def docs_row(name: str) -> str:
    """The line of the table in docs/robustness.md."""
    entry = ATTACKS[name]
    args = ", ".join(
        f"`{n}`" if a.default is None else f"`{n}` = {a.default:g}" for n, a in entry.arguments.items()
    )
    return f"| `{name}` | {entry.summary} | {args or '–'} | {entry.note or '–'} |"


@pytest.mark.parametrize("name", ATTACKS)
def test_the_page_has_a_row_for_it(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "robustness.md"
    assert docs_row(name) in page.read_text(encoding="utf-8").splitlines()
