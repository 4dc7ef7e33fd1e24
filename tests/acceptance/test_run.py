"""What each task is given, and how the command line is read."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.acceptance.conftest import Command
