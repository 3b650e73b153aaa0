"""Beginning: a project's data folder from loose recordings and a file of sentences.

`init` cuts recordings at pauses, drafts or divides their texts, keeps them in a table that a person
corrects, proposes a reference clip, chooses what to record next, and says what is missing. The same
command takes corrections and new recordings over; nothing is cut or heard twice.
"""

from voxadapt.beginning.project import init
from voxadapt.beginning.wishes import Begun, Wishes

__all__ = ["Begun", "Wishes", "init"]
