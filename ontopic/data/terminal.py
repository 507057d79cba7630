"""A stranger's text on a terminal."""

from ontopic.visible import visible as visible
