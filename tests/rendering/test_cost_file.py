"""The file of learned costs: it survives a restart, and whatever is in it, the server starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.rendering.cost import CostModel, Work
from service.rendering.cost_file import CostFile

WORK = Work("render jpeg webp", 1.0)


def learned() -> CostModel:
    model = CostModel()
    for _ in range(30):
        model.learn(WORK, 3.0)
    return model


def test_learned_costs_survive_a_restart(tmp_path: Path) -> None:
    path, model = tmp_path / "costs.json", learned()
    CostFile(path, model).save()
    restarted = CostModel()
    CostFile(path, restarted).restore()
    assert restarted.estimate(WORK) == model.estimate(WORK)
    assert [file.name for file in tmp_path.iterdir()] == ["costs.json"]


@pytest.mark.parametrize("body", [b"", b"\0" * 100, b"{" * 2_000_000])
def test_damaged_file_is_ignored_and_replaced(tmp_path: Path, body: bytes, logged: list[dict[str, object]]) -> None:
    path, model = tmp_path / "costs.json", CostModel()
    path.write_bytes(body)
    file = CostFile(path, model)
    file.restore()
    assert model.estimate(WORK) == WORK.prior_seconds
    assert len(logged) == 1
    model.learn(WORK, 3.0)
    file.save()
    assert CostModel().restore(path.read_bytes())


def test_costs_that_cannot_be_read_or_saved_are_only_logged(tmp_path: Path, logged: list[dict[str, object]]) -> None:
    path = tmp_path / "costs.json"
    path.mkdir()
    file = CostFile(path, learned())
    file.restore()
    file.save()
    assert len(logged) == 2


def test_file_is_not_written_unless_something_was_learned(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    file = CostFile(path, learned())
    CostFile(path, CostModel()).save()
    assert not path.exists()
    file.save()
    path.unlink()
    file.save()
    assert not path.exists()
