"""A camera that misbehaves: MJPEG over HTTP, in a process of its own; a fault for each connection in turn.

    python mjpeg_server.py PORT FOLDER FAULT …

The pictures are FOLDER/small/*.jpg and FOLDER/large/*.jpg. It needs no library: it starts at once.

The last fault is that of all connections that follow. Says `ready` when it listens. Faults at once: missing
(404: the server is there, the stream is not), page (a web page in its place), empty (it hangs up). After 15
frames: cut (the socket is closed in the middle of a picture), corrupt (every other picture is noise), larger
(the pictures are), stutter (pauses of 0.4 s), shutter (a pause of 1.5 s), silent (nothing more, and the
socket stays open). Or none.
"""

import os
import socket
import sys
import threading
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

FPS, FRAMES = 25.0, 15
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=frame\r\n\r\n"

AT_ONCE = {
    "missing": b"HTTP/1.0 404 Not Found\r\n\r\n",
    "page": b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"<html>starting</html>" * 400,
    "empty": b"",
}


def parts(folder: Path) -> list[bytes]:
    pictures = [path.read_bytes() for path in sorted(folder.iterdir())]
    head = "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    return [head.format(len(data)).encode() + data + b"\r\n" for data in pictures]


def serve(client: socket.socket, folder: Path, fault: str) -> None:
    client.recv(4096)
    if fault in AT_ONCE:
        client.sendall(AT_ONCE[fault])
        return
    client.sendall(HEAD)
    pictures, due = parts(folder / "small"), time.monotonic()
    for n in count():
        data = pictures[n % len(pictures)]
        if n >= FRAMES:
            if fault == "cut":
                client.sendall(data[: len(data) // 2])
                return
            if fault == "corrupt" and n % 2:
                data = data[:120] + os.urandom(len(data) - 122) + data[-2:]
            if fault == "larger" and n == FRAMES:
                pictures = parts(folder / "large")
            if fault == "stutter" and n % 10 == 0:
                due += 0.4
            if fault == "shutter" and n == FRAMES:
                due += 1.5
            if fault == "silent":
                time.sleep(60)
        client.sendall(data)
        due += 1 / FPS
        time.sleep(max(0.0, due - time.monotonic()))


def answer(client: socket.socket, folder: Path, fault: str) -> None:
    with client, suppress(ConnectionError):
        serve(client, folder, fault)


def main() -> None:
    folder, faults = Path(sys.argv[2]), sys.argv[3:]
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        print("ready", flush=True)
        while True:
            client, _ = server.accept()
            fault = faults.pop(0) if len(faults) > 1 else faults[0]
            threading.Thread(target=answer, args=(client, folder, fault), daemon=True).start()


if __name__ == "__main__":
    main()
