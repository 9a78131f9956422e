import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # hosts.py, services.py
sys.path.insert(0, str(HERE.parent / "chaos"))  # chaos.py, record_checks.py
