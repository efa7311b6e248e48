"""The HTTP side: routes, the table from errors to statuses, event streams, the web server. Only user of FastAPI.

Knows the rooms behind it by their public functions; nothing of numpy, torch, DICOM, or how work is queued.
"""

from openscans.server.access import AccessRules
from openscans.server.app import create_app
from openscans.server.state import AppState
from openscans.server.uvicorn_server import Server

__all__ = ["AccessRules", "AppState", "Server", "create_app"]
