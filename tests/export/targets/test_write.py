"""Every target's files: the same each time, valid for what reads them, and no value breaks out of its place."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.export.targets.forms import make_form
from tuneloop.config.load import load_config
from tuneloop.config.protection import SPOOL
from tuneloop.errors import ArtifactError, UsageError
from tuneloop.export.targets import contents, docker, escape
from tuneloop.export.targets.settings import TargetSettings, slug
from tuneloop.export.targets.write import TARGETS, plan, write
from tuneloop.forms import FormName

DATABASE = "postgresql://tuneloop@db.example/tuneloop"
HOSTILE = 'Claims "v2" \'; $(touch /tmp/x) `id` %n ${HOME} \\ # : - {{ x }} {% raw %}'
NAMES = ["claims", HOSTILE, "Verträge 契約", "yes", "123", "-", "a" * 300]
WRITTEN = [target for target in TARGETS if target != "hub"]


def settings(name: str = "claims", **more: Any) -> TargetSettings:
    return TargetSettings(name=name, database_url=DATABASE, **more)


def form_for(target: str) -> FormName:
    return "gguf-q8_0" if target == "ollama" else "merged"


def files_of(target: str, folder: Path, options: TargetSettings) -> dict[str, str]:
    form = make_form(folder / 'it\'s a "store"', form_for(target))
    return {path.name: path.read_text() for path in write(target, form, options, folder / "out")}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", WRITTEN)
def test_the_same_form_and_settings_give_the_same_bytes_and_the_plan_tells_them(
    tmp_path: Path, target: str, name: str
) -> None:
    form = make_form(tmp_path, form_for(target))
    paths = write(target, form, settings(name), tmp_path / "out")
    first = {path.name: path.read_bytes() for path in paths}
    again = write(target, form, settings(name), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in again} == first
    assert plan(target, form, settings(name)) == {key: len(value) for key, value in first.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["docker", "kubernetes", "systemd", "modal"])
def test_the_configuration_of_a_service_loads_and_names_the_export(tmp_path: Path, target: str, name: str) -> None:
    files_of(target, tmp_path, settings(name))
    config = load_config(tmp_path / "out" / "tuneloop.yaml", [])
    (served,) = config.serve.models
    assert served.export == "a1" * 8
    assert config.serve.is_loopback == (target == "systemd")
    assert str(config.store.root).endswith("/store")


@pytest.mark.parametrize(("name", "gpus"), [("claims", 0), (HOSTILE, 2), ("yes", 0)])
def test_every_manifest_is_valid_for_kubernetes(tmp_path: Path, name: str, gpus: int) -> None:
    files = files_of("kubernetes", tmp_path, settings(name, gpus=gpus))
    objects = [
        yaml.safe_load(text) for file, text in files.items() if file not in ("kustomization.yaml", "tuneloop.yaml")
    ]
    assert {o["kind"] for o in objects} == {
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount",
    }  # fmt: skip
    for manifest in objects:
        kubernetes_validate.validate(manifest, "1.37", strict=True)
        assert slug(name) == manifest["metadata"]["name"]
    named = yaml.safe_load(files["kustomization.yaml"])
    assert {*named["resources"], "kustomization.yaml", "tuneloop.yaml"} == set(files)


def test_a_manifest_with_a_mistake_would_be_noticed(tmp_path: Path) -> None:
    manifest = yaml.safe_load(files_of("kubernetes", tmp_path, settings())["deployment.yaml"])
    manifest["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_a_pod_may_do_little_and_is_watched(tmp_path: Path) -> None:
    files = files_of("kubernetes", tmp_path, settings(gpus=1))
    deployment = yaml.safe_load(files["deployment.yaml"])["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in deployment  # or every update would undo what the autoscaler did
    served = yaml.safe_load(files["tuneloop.yaml"])["serve"]
    assert pod["terminationGracePeriodSeconds"] > served["drain_s"] + served["drain_delay_s"]
    account = yaml.safe_load(files["account.yaml"])["metadata"]["name"]
    assert pod["serviceAccountName"] == account


@pytest.mark.parametrize("name", NAMES)
def test_the_modal_script_compiles_and_its_values_are_the_given_ones(tmp_path: Path, name: str) -> None:
    script = files_of("modal", tmp_path, settings(name, gpus=2))["modal_app.py"]
    tree = ast.parse(script)
    compile(script, "modal_app.py", "exec")
    calls = {ast.unparse(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert ast.literal_eval(calls["modal.App"].args[0]) == slug(name)
    function = {word.arg: word.value for word in calls["app.function"].keywords}
    assert ast.literal_eval(function["gpu"]) == "L4:2"
    folders = [ast.literal_eval(argument) for argument in _call(tree, "add_local_dir").args]
    assert folders[0] == str((tmp_path / 'it\'s a "store"' / "artifacts/export" / ("a1" * 8)).absolute())


def _call(tree: ast.AST, method: str) -> ast.Call:
    return next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", WRITTEN)
def test_every_script_is_a_shell_script_and_runs_nothing_of_a_name(tmp_path: Path, target: str, name: str) -> None:
    for file, text in files_of(target, tmp_path, settings(name)).items():
        if not file.endswith(".sh"):
            continue
        subprocess.run(["sh", "-n", tmp_path / "out" / file], check=True)
        commands = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert not any(word in ("touch", "id") for line in commands for word in shlex.split(line))
        assert (tmp_path / "out" / file).stat().st_mode & 0o111


@pytest.mark.parametrize("name", [*NAMES, 'quote " and \\'])
def test_the_dockerfile_keeps_its_instructions_whatever_the_names_are(tmp_path: Path, name: str) -> None:
    text = files_of("docker", tmp_path, settings(name))["Dockerfile"]
    logical = text.replace("\\\n", " ").splitlines()
    instructions = [line.split()[0] for line in logical if line and not line.startswith("#")]
    assert instructions == [
        "FROM", "ARG", "ARG", "COPY", "WORKDIR", "RUN",
        "FROM", "LABEL", "ENV", "RUN", "COPY", "COPY", "COPY", "USER", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL",
        "HEALTHCHECK", "ENTRYPOINT", "CMD",
    ]  # fmt: skip
    assert "USER 10001:10001" in text
    (title,) = [line.removeprefix("LABEL org.opencontainers.image.title=") for line in logical if "image.title" in line]
    assert title[1:-1].replace('\\"', '"').replace("\\$", "$").replace("\\\\", "\\") == name
    health = next(line for line in logical if line.startswith("HEALTHCHECK"))
    ast.parse(json.loads(health.partition("CMD ")[2])[2])


@pytest.mark.parametrize("name", NAMES)
def test_the_compose_file_runs_the_image_on_loopback_with_little_rights(tmp_path: Path, name: str) -> None:
    files = files_of("compose", tmp_path, settings(name))
    service = yaml.safe_load(files["compose.yaml"])["services"]["tuneloop"]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert {"Dockerfile", "tuneloop.yaml", "build.sh"} < set(files)


@pytest.mark.parametrize("name", NAMES)
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path, name: str) -> None:
    program = tmp_path / "a path" / "tuneloop"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    files = files_of("systemd", tmp_path, settings(name, program=str(program)))
    (unit,) = [file for file in files if file.endswith(".service")]
    assert unit == f"{slug(name)}.service"
    sections = [line for line in files[unit].splitlines() if line.startswith("[")]
    assert sections == ["[Unit]", "[Service]", "[Install]"]
    if shutil.which("systemd-analyze") is None:
        return
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / "out" / unit],
        capture_output=True,
        text=True,
    )
    assert unit not in checked.stderr, checked.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_vllm_script_has_the_command_line_that_tuneloop_itself_uses(tmp_path: Path, name: str) -> None:
    text = files_of("vllm", tmp_path, settings(name, gpus=1, max_tokens=1024))["vllm-serve.sh"]
    words = shlex.split(text.splitlines()[-1])
    assert words[:3] == ["exec", "vllm", "serve"]
    assert words[3].endswith("/model")
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--max-model-len") + 1] == "1024"
    assert words[words.index("--chat-template") + 1].endswith("/chat_template.jinja")


def test_vllm_gets_an_adapter_beside_its_base_model(tmp_path: Path) -> None:
    paths = write("vllm", make_form(tmp_path, "adapter"), settings(), tmp_path / "out")
    words = shlex.split(paths[0].read_text().splitlines()[-1])
    assert words[3] == "org/base"
    assert words[words.index("--max-lora-rank") + 1] == "16"  # the smallest that vLLM takes for a rank of 12
    assert json.loads(words[words.index("--lora-modules") + 1])["name"] == "claims"


def test_what_vllm_cannot_load_is_refused_with_what_to_export_instead(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="GGUF"):
        write("vllm", make_form(tmp_path, "gguf-f16"), settings(), tmp_path / "out")


def test_a_file_that_somebody_has_changed_is_not_overwritten(tmp_path: Path) -> None:
    form = make_form(tmp_path)
    write("kubernetes", form, settings(), tmp_path / "out")
    changed = tmp_path / "out" / "service.yaml"
    changed.write_text("mine")
    with pytest.raises(UsageError, match="other content"):
        write("kubernetes", form, settings(), tmp_path / "out")
    assert changed.read_text() == "mine"


def test_a_folder_that_is_no_artifact_cannot_be_deployed(tmp_path: Path) -> None:
    form = make_form(tmp_path)
    (form.folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="not in a store"):
        write("docker", form, settings(), tmp_path / "out")


def test_the_service_keeps_what_its_database_could_not_take_where_it_may_write(tmp_path: Path) -> None:
    folder = f"{contents.HOME}/store/{SPOOL}"
    files = files_of("kubernetes", tmp_path, settings())
    pod = yaml.safe_load(files["deployment.yaml"])["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert {"name": mounts[folder], "emptyDir": {}} in pod["volumes"]
    assert folder in docker.dockerfile(make_form(tmp_path / "again"), settings()).partition("VOLUME")[2]


def test_an_unknown_target_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        write("kubernets", make_form(tmp_path), settings(), tmp_path / "out")
    assert "Did you mean 'kubernetes'?" in refused.value.hint


@pytest.mark.parametrize("target", ["kubernetes", "modal"])
def test_copies_that_come_and_go_need_a_database(tmp_path: Path, target: str) -> None:
    with pytest.raises(UsageError) as refused:
        write(target, make_form(tmp_path), TargetSettings(), tmp_path / "out")
    assert "database_url=" in refused.value.hint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"databse_url": "x"}, "no setting 'databse_url'"),
        ({"port": "eighty"}, "not a whole number"),
        ({"port": "0"}, "not a port"),
        ({"name": "two\nlines"}, "not one line"),
        ({"name": " "}, "not a name"),
        ({"public": "perhaps"}, "not true or false"),
        ({"database_url": "postgresql://me:secret@db/x"}, "a password in it"),
        ({"database_url": "mysql://db/x"}, "no PostgreSQL address"),
        ({"database_url": "postgresql://me@db:port/x"}, "no PostgreSQL address"),
        ({"replicas": "5", "max_replicas": "2"}, "not at least as many"),
        ({"secret": "Not A Name"}, "not a name of a-z"),
        ({"program": "bin/tuneloop"}, "not an absolute path"),
        ({"package": "a\nRUN evil"}, "not one line"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_with_its_name(given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TargetSettings.of(given)


def test_settings_are_read_from_words() -> None:
    read = TargetSettings.of({"name": "a b", "gpus": "1", "memory_gib": "1.5", "public": "True"})
    assert read == TargetSettings(name="a b", gpus=1, memory_gib=1.5, public=True)


@given(st.text(), st.text())
def test_a_slug_is_a_dns_label_and_two_names_have_two(one: str, other: str) -> None:
    made = slug(one)
    assert len(made) <= 63 - 16 + 1
    assert made[0].isalpha() and made[-1].isalnum() and made.isascii() and made == made.lower()
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert (slug(one) == slug(other)) == (one == other)


@given(st.text())
def test_a_text_in_yaml_is_read_back_in_any_place(text: str) -> None:
    written = escape.for_yaml(text)
    assert "\n" not in written
    assert yaml.safe_load(f"a: {written}  # comment\nb: {{c: {written}}}\n") == {"a": text, "b": {"c": text}}


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_text_in_a_shell_is_one_word(text: str) -> None:
    assert shlex.split(f"a {escape.for_shell(text)} b") == ["a", text, "b"]


@given(st.text())
def test_a_text_in_python_is_a_literal_and_a_comment_stays_in_its_line(text: str) -> None:
    assert ast.literal_eval(escape.for_python(text)) == text
    assert len(escape.for_comment(text).splitlines()) <= 1


def test_a_value_without_a_filter_is_an_error_and_not_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    from jinja2 import DictLoader

    monkeypatch.setattr(escape, "PackageLoader", lambda package: DictLoader({"t": "name: {{ name }}"}))
    with pytest.raises(TypeError, match="without a filter"):
        escape.render("t", name="x")
