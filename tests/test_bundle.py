"""The app that `flwr run` sends: made of the installed package, and what a node makes of one that differs."""

import io
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.cli.build import build_fab_from_disk
from flwr.common.config import get_fab_config

from fedrec.federation.config import RUN_PATHS, RunConfig, to_flat
from fedrec.federation.deployment import app_bundle, message_process
from fedrec.federation.deployment.app_bundle import ForeignBundle
from tests.support import foreign_app

# of Flower's, as it builds a bundle
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

CLIENT = "fedrec/federation/client_app.py"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "app"
    app_bundle.write(folder)
    return folder


def refused(content: bytes) -> str:
    with pytest.raises(ForeignBundle) as refusal:
        app_bundle.refuse_foreign(content, app_bundle.installed())
    return str(refusal.value)


def packed(files: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_the_written_app_bundles_the_installed_code_and_its_settings(app: Path) -> None:
    content = build_fab_from_disk(app)
    app_bundle.refuse_foreign(content, app_bundle.installed())
    declared = get_fab_config(content)["tool"]["flwr"]["app"]
    assert declared["config"] == RUN_PATHS | to_flat(RunConfig())
    assert set(declared["components"].values()) == {
        "fedrec.federation.server_app:app",
        "fedrec.federation.client_app:app",
    }
    project = tomllib.loads((app_bundle.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert get_fab_config(content)["project"].items() <= project.items()


def test_other_code_is_named_and_refused(app: Path, tmp_path: Path) -> None:
    ours = app_bundle.installed()
    assert f": {CLIENT} differ;" in refused(packed(ours | {CLIENT: ours[CLIENT] + b"\n"}))
    assert f": {CLIENT} differ;" in refused(packed(ours | {CLIENT: ours[CLIENT][:-1]}))
    assert ": more.py differ;" in refused(packed(ours | {"more.py": b""}))
    assert ": native.so differ;" in refused(packed(ours | {"native.so": b""}))
    assert f": {CLIENT} differ;" in refused(packed({name: text for name, text in ours.items() if name != CLIENT}))
    assert f"and {len(ours) - 3} more differ;" in refused(packed({}))
    assert "stranger.py" in refused(build_fab_from_disk(foreign_app.write(tmp_path / "spy")))


def test_what_is_no_bundle_is_refused_unread() -> None:
    ours = app_bundle.installed()
    assert "cannot be read" in refused(b"")
    assert "cannot be read" in refused(packed(ours)[:-100])
    assert CLIENT in refused(packed(ours | {CLIENT: bytes(50_000_000)}))  # 50 MB of 50 kB, of which little is read


def test_nothing_of_a_bundle_is_run(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message for a stranger's code, with a bundle that was let pass: the installed app has no answer to it."""
    metadata = Metadata(1, "1", 1, 2, "", "", 0.0, 60.0, "query.loot")
    message = make_message(metadata, content=RecordDict())
    context = Context(1, 2, {"data": "/nowhere"}, RecordDict(), {})
    reply, last = message_process.reply_to(message, context, build_fab_from_disk(app))
    assert last
    assert isinstance(reply, Message)
    assert isinstance(reply.error, Error)
    assert "loot" in (reply.error.reason or "")


def test_an_installed_package_bundles_itself(app: Path, tmp_path: Path) -> None:
    """As from a wheel: the packages stand in site-packages, beside other things, and there is no clone."""
    for package in app_bundle.PACKAGES:
        shutil.copytree(
            app_bundle.ROOT / package, tmp_path / "site" / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(app_bundle.ROOT / app_bundle.FACE, tmp_path / "site" / "fedrec")
    (tmp_path / "site" / "other.py").touch()
    command = [
        sys.executable,
        "-c",
        "from pathlib import Path; from fedrec.federation.deployment import app_bundle; app_bundle.write(Path('app'))",
    ]
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")}, check=True)
    assert contents(tmp_path / "app") == contents(app)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
