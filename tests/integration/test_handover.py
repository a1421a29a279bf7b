"""What can be checked of a run afterwards: its audit log, and the bundle that is handed over."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal import cli
from shoal.common.audit.check import read_chain
from shoal.common.audit.log import AUDIT_LOG
from shoal.common.config.file import load_scenario
from shoal.common.errors import IntegrityError, RunError
from shoal.simulations import datasets
from shoal.simulations.handover import check_bundle, write_bundle
from shoal.simulations.handover.archive import CHECKSUMS, SIGNATURE, checksums, zipped
from shoal.simulations.handover.model_card import TO_FILL_IN
from shoal.simulations.handover.signing import fingerprint, new_key, read_key
from shoal.simulations.report.facts import Facts
from shoal.simulations.results import RunFolder
from shoal.simulations.results.text import interval
from shoal.simulations.run import run_scenario

ROUNDS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs")
    given = ["resources.backend=serial", f"training.rounds={ROUNDS}", "output.compare=true"]
    given += ["output.audit=true", f"output.directory={folder}", "output.bootstrap=20"]
    given += ["resources.clients_per_chunk=1"]  # each client answers for itself, as in a pilot
    return RunFolder(run_scenario(load_scenario("linear", given)))


def test_every_message_of_a_run_is_in_its_log(run: RunFolder) -> None:
    chain = read_chain(run.path / AUDIT_LOG).require_whole()
    assert chain.ended
    clients = len(datasets.load_population(run.scenario()))
    sent = [e for e in chain.messages() if e["direction"] == "sent"]
    counts = {kind: sum(e["kind"] == kind for e in sent) for kind in {e["kind"] for e in sent}}
    # Each round trains and evaluates all; the untrained model is evaluated too. The test asks all about the
    # federated and the pooled model.
    assert counts == {
        "query.statistics": clients,
        "train": ROUNDS * clients,
        "evaluate": (ROUNDS + 1) * clients,
        "train.local": clients,
        "train.pooled": 1,
        "evaluate.test": 2 * clients,
    }
    answered = [e for e in chain.messages() if e["direction"] == "received"]
    assert [e["peer"] for e in answered if e["kind"] == "train"] == [
        e["peer"] for e in sent if e["kind"] == "train"
    ]
    assert len(answered) == len(sent)
    assert {e["round"] for e in sent if e["kind"] == "train"} == {1, 2}
    assert {e["peer"] for e in sent if e["kind"] == "train.pooled"} == {"(pooled)"}


def test_what_all_clients_get_has_one_hash_and_the_next_round_another(run: RunFolder) -> None:
    entries = read_chain(run.path / AUDIT_LOG).messages()
    sent = [e for e in entries if (e["kind"], e["direction"]) == ("train", "sent")]
    of_round = {number: {e["sha256"] for e in sent if e["round"] == number} for number in (1, 2)}
    assert [len(hashes) for hashes in of_round.values()] == [1, 1]
    assert of_round[1] != of_round[2]


def test_a_reply_that_stands_for_several_clients_names_them(tmp_path: Path) -> None:
    given = ["training.rounds=1", "output.bootstrap=0", "output.audit=true", "resources.clients_per_chunk=5"]
    given += ["resources.backend=serial", f"output.directory={tmp_path}"]
    path = run_scenario(load_scenario("linear", given))
    entries = [e for e in read_chain(path / AUDIT_LOG).messages() if e["kind"] == "train"]
    sent = [e["peer"] for e in entries if e["direction"] == "sent"]
    answered = [e for e in entries if e["direction"] == "received"]
    assert len(answered) < len(sent)
    assert sorted(name for e in answered for name in (e["peer"], *e["others"])) == sorted(sent)
    assert not Facts.of(RunFolder(path)).logged  # so what left by site comes from the rounds


# -- the bundle ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "operator.key"
    new_key(path)
    return path


@pytest.fixture(scope="module")
def bundle(run: RunFolder, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "run.zip"
    write_bundle(run, path, read_key(key))
    return path


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_holds_what_was_made_and_says_how(run: RunFolder, bundle: Path) -> None:
    found = contents(bundle)
    assert set(found) == {
        *("model.keras", "MODEL_CARD.md", "DATA_SHEET.md", "PRIVACY.md", "ASSESSMENT.md", "VERIFY.md"),
        *("config.toml", "environment.json", "schema.json", "rounds.parquet", "clients.parquet"),
        *("sites.parquet", "AUDIT_ROOT.txt", "CHECKSUMS", "CHECKSUMS.sig", "operator.pub"),
    }
    card = found["MODEL_CARD.md"].decode()
    headings = re.findall("^## (.*)$", card, re.M)
    # Mitchell et al. 2019, section 4; and ours on preprocessing
    assert [h for h in headings if h != "Preprocessing"] == [
        *("Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data"),
        *("Quantitative analyses", "Ethical considerations", "Caveats and recommendations"),
    ]
    assert sha256(found["model.keras"]).hexdigest() in card
    assert TO_FILL_IN in card.split("## Intended use")[1].split("## Factors")[0]
    for row in run.sites():
        for model in ("local", "federated", "centralised"):
            assert f"| {interval(row.tests[model]['mse'])} |" in card  # type: ignore[index]
    assert read_chain(run.path / AUDIT_LOG).root in found["AUDIT_ROOT.txt"].decode()
    directory = str(run.path.parent)
    texts = {name: text for name, text in found.items() if not name.endswith((".keras", ".parquet"))}
    assert [name for name, text in texts.items() if directory.encode() in text] == []


def test_what_left_a_site_is_in_the_statement(run: RunFolder, bundle: Path) -> None:
    statement = contents(bundle)["PRIVACY.md"].decode()
    received = [e for e in read_chain(run.path / AUDIT_LOG).messages() if e["direction"] == "received"]
    name = received[0]["peer"]
    trained = [e["bytes"] for e in received if (e["peer"], e["kind"]) == (name, "train")]
    assert f"| {name} | train | {len(trained)} | {sum(trained):,} (" in statement
    assert "(pooled)" not in statement


def test_the_same_run_gives_the_same_bytes(run: RunFolder, key: Path, bundle: Path, tmp_path: Path) -> None:
    elsewhere = RunFolder(Path(shutil.copytree(run.path, tmp_path / run.name)))
    again = tmp_path / "again.zip"
    write_bundle(elsewhere, again, read_key(key))
    assert again.read_bytes() == bundle.read_bytes()


def test_a_good_bundle_is_reported_by_whose_key_it_is(bundle: Path, key: Path) -> None:
    public = key.with_name("operator.key.pub")
    signer = fingerprint(read_key(key).public_key())
    assert check_bundle(bundle).signer == signer
    assert not check_bundle(bundle).known
    assert check_bundle(bundle, public).known
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_the_commands_in_the_bundle_work(bundle: Path, key: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path)
    text = (tmp_path / "VERIFY.md").read_text()
    commands = [line for line in text.splitlines() if line.startswith(("sha256sum", "openssl"))]
    assert len(commands) == 3

    def run_(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)

    done = [run_(command) for command in commands]
    assert [one.returncode for one in done] == [0, 0, 0], done
    assert fingerprint(read_key(key).public_key()) in done[2].stdout
    (tmp_path / "PRIVACY.md").write_text("Nothing left.\n")
    assert run_(commands[0]).returncode != 0
    listed = tmp_path / "CHECKSUMS"
    listed.write_text(listed.read_text().replace("a", "b", 1))
    assert run_(commands[1]).returncode != 0


def rewritten(bundle: Path, path: Path, **changes: bytes | None) -> Path:
    """Write a bundle with files changed, added or (None) left out; their names have "_" for "."."""
    files = contents(bundle)
    for name, content in changes.items():
        real = name.replace("__", ".")
        files.pop(real, None)
        if content is not None:
            files[real] = content
    path.write_bytes(zipped(files))
    return path


def test_what_was_done_to_a_bundle_is_reported(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    files = contents(bundle)
    with pytest.raises(IntegrityError, match=r"PRIVACY\.md in .* was changed"):
        check_bundle(rewritten(bundle, path, PRIVACY__md=b"Nothing left.\n"))
    with pytest.raises(IntegrityError, match=r"lacks PRIVACY\.md"):
        check_bundle(rewritten(bundle, path, PRIVACY__md=None))
    with pytest.raises(IntegrityError, match=r"has the unlisted extra\.py"):
        check_bundle(rewritten(bundle, path, extra__py=b""))
    # Changed together with its checksum: the signature is over the list.
    forged = {**files, "PRIVACY.md": b"Nothing left.\n"}
    inside = {n: c for n, c in forged.items() if n not in (CHECKSUMS, SIGNATURE)}
    with pytest.raises(IntegrityError, match="signature does not match"):
        check_bundle(rewritten(bundle, path, PRIVACY__md=b"Nothing left.\n", CHECKSUMS=checksums(inside)))
    with pytest.raises(IntegrityError, match="is not signed"):
        check_bundle(rewritten(bundle, path, CHECKSUMS__sig=None))
    path.write_bytes(bundle.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match="is not a bundle"):
        check_bundle(path)
    path.unlink()
    with pytest.raises(RunError, match="cannot read"):
        check_bundle(path)


def test_a_bundle_that_somebody_else_signed_is_refused(
    run: RunFolder, bundle: Path, key: Path, tmp_path: Path
) -> None:
    other = new_key(tmp_path / "other.key")
    public = key.with_name("operator.key.pub")
    write_bundle(run, tmp_path / "theirs.zip", other)
    assert check_bundle(tmp_path / "theirs.zip").signer == fingerprint(other.public_key())
    with pytest.raises(IntegrityError, match="signed with another key"):
        check_bundle(tmp_path / "theirs.zip", public)
    write_bundle(run, tmp_path / "unsigned.zip")
    assert check_bundle(tmp_path / "unsigned.zip").signer == ""
    with pytest.raises(IntegrityError, match="is not signed"):
        check_bundle(tmp_path / "unsigned.zip", public)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0), value=st.integers(1, 255))
def test_a_changed_byte_is_found_or_changes_no_file(
    bundle: Path, tmp_path: Path, place: int, value: int
) -> None:
    content = bytearray(bundle.read_bytes())
    content[place % len(content)] ^= value
    path = tmp_path / "b.zip"
    path.write_bytes(content)
    try:
        check_bundle(path)
    except (IntegrityError, RunError):
        return
    assert contents(path) == contents(bundle)  # a date, or an attribute, of the zip


def test_keys_that_cannot_be_used_are_refused(key: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="already exists"):
        new_key(key)
    loose = tmp_path / "loose.key"
    loose.write_bytes(key.read_bytes())
    loose.chmod(0o644)
    with pytest.raises(RunError, match="other users may read the private key"):
        read_key(loose)
    loose.chmod(0o600)
    loose.write_text("no key")
    with pytest.raises(RunError, match="cannot read the private key"):
        read_key(loose)
    loose.write_bytes(p256())
    with pytest.raises(RunError, match="another kind of key"):
        read_key(loose)


def p256() -> bytes:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(pem, pkcs8, serialization.NoEncryption())


def test_a_run_that_cannot_be_handed_over_says_why(run: RunFolder, tmp_path: Path) -> None:
    damaged = RunFolder(Path(shutil.copytree(run.path, tmp_path / "damaged")))
    log = damaged.path / AUDIT_LOG
    log.write_bytes(log.read_bytes().replace(b'"train"', b'"trial"', 1))
    with pytest.raises(IntegrityError, match="changed"):
        write_bundle(damaged, tmp_path / "b.zip")
    (damaged.path / "model.keras").unlink()
    with pytest.raises(RunError, match=r"lacks model\.keras"):
        write_bundle(damaged, tmp_path / "b.zip")
    killed = RunFolder(tmp_path / "killed")
    killed.path.mkdir()
    for name in ("config.toml", "environment.json"):
        shutil.copy(run.path / name, killed.path / name)
    lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    (killed.path / "events.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(RunError, match="is killed; only a finished run"):
        write_bundle(killed, tmp_path / "b.zip")


def test_the_command_exports_and_checks(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shoal(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["export", *map(str, arguments)])
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out + told.err

    use, path, key = tmp_path / "use.md", tmp_path / "b.zip", tmp_path / "k.key"
    use.write_text("For tests.")
    code, said = shoal(str(run.path), "--out", str(path), "--new-key", str(key), "--intended-use", str(use))
    assert code == 0
    assert "signed with the key" in said
    assert "For tests." in contents(path)["MODEL_CARD.md"].decode()
    code, said = shoal("--verify", str(path), "--public-key", f"{key}.pub")
    assert code == 0
    assert "all 16 files are unchanged" in said
    assert "signed with the expected key" in said
    assert "The bundle cannot prove whose key that is" in shoal("--verify", str(path))[1]
    rewritten(path, path, model__keras=b"another")
    code, said = shoal("--verify", str(path))
    assert code == IntegrityError.exit_code
    assert "model.keras" in said
    assert shoal()[0] == 2
    assert shoal(str(run.path), "--verify", str(path))[0] == 2


# -- a guarantee that counts on secret cohorts ---------------------------------------------------


@pytest.mark.parametrize("sampling", ["poisson", "fixed"])
def test_secret_cohorts_stay_out_of_the_bundle_and_epsilon_can_be_computed_again(
    tmp_path: Path, sampling: str
) -> None:
    settings = ["privacy.unit=client", "privacy.epsilon=8", "strategy.clients_per_round=5",
                f"strategy.sampling={sampling}", "training.rounds=4", "output.bootstrap=0",
                "resources.backend=serial", f"output.directory={json.dumps(str(tmp_path))}"]  # fmt: skip
    run = RunFolder.open(run_scenario(load_scenario("linear", settings)))
    guarantee = run.summary()["privacy"]
    assert guarantee["epsilon_known_cohorts"] > guarantee["epsilon"]
    assert guarantee["against"]["the server"] == "none: it is trusted with single updates"
    write_bundle(run, tmp_path / "run.zip")
    found = contents(tmp_path / "run.zip")
    assert not {"rounds.parquet", "clients.parquet"} & set(found)
    assert "all sites" in found["PRIVACY.md"].decode()
    assert "client-3" not in found["PRIVACY.md"].decode()
    (tmp_path / "PRIVACY.json").write_bytes(found["PRIVACY.json"])
    script = Path(__file__).parents[2] / "examples" / "recompute_epsilon.py"
    told = subprocess.run(
        [sys.executable, str(script), "PRIVACY.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    computed, stated = (float(word) for word in re.findall(r"[\d.]+", told))
    assert computed == pytest.approx(stated, rel=1e-3)
    assert stated == pytest.approx(guarantee["epsilon"], rel=1e-5)
