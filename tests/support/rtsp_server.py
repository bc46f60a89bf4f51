"""Serves test pictures as rtsp://127.0.0.1:PORT/ir and /vis, with Debian's gst-rtsp-server.

    python rtsp_server.py PORT [--password] [--size=WIDTHxHEIGHT] [--late=SECONDS]

Run by the system's Python, which has its bindings. With --password, only for me:hunter2. With --late, the
streams are "not found" for so many seconds. Says `ready` when it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    "( videotestsrc is-live=true pattern={pattern} ! video/x-raw,width={width},height={height},"
    "framerate=25/1 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! "
    "rtph264pay name=pay0 pt=96 )"
)
options = dict(option.lstrip("-").partition("=")[::2] for option in sys.argv[2:])
width, height = options.get("size", "320x240").split("x")

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])


def mount() -> bool:
    for path, pattern in (("/ir", "ball"), ("/vis", "smpte")):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(PIPELINE.format(pattern=pattern, width=width, height=height))
        factory.set_shared(True)
        if "password" in options:
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_permission_for_role("user", "media.factory.access", True)
            permissions.add_permission_for_role("user", "media.factory.construct", True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(path, factory)
    return False  # once


if "password" in options:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic("me", "hunter2"), token)
    server.set_auth(auth)
if "late" in options:
    GLib.timeout_add(round(1000 * float(options["late"])), mount)
else:
    mount()
if server.attach(None) == 0:
    sys.exit("the port is taken")
print("ready", flush=True)
GLib.MainLoop().run()
