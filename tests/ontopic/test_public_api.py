"""What the packages of ``ontopic`` re-export."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import ontopic

PACKAGES = [f"ontopic.{module.name}" for module in pkgutil.iter_modules(ontopic.__path__) if module.ispkg]


@pytest.mark.parametrize("name", PACKAGES)
def test_each_listed_name_is_there_and_hides_no_module(name: str) -> None:
    package = importlib.import_module(name)
    listed = set(getattr(package, "__all__", ()))
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert listed or name == "ontopic.commands"
    # Once a module is imported, the package's attribute of that name is the module.
    assert listed & modules == set()
    assert [each for each in listed if getattr(package, each) is None] == []


def test_there_are_few_packages() -> None:
    assert len(PACKAGES) <= 16
