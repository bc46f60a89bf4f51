"""A camera that misbehaves: MJPEG over HTTP, in a process of its own; a fault for each connection in turn.

python mjpeg_server.py PORT FAULT …; the last fault is `none`'s: it serves for ever. Faults, after 15 frames:
cut (the socket is closed in the middle of a picture), corrupt (every other picture is noise), larger (the
pictures are), stutter (pauses of 0.4 s), silent (nothing more, and the socket stays open), empty (it hangs
up at once).
"""

import os
import socket
import sys
import threading
import time
from contextlib import suppress

import cv2
import numpy as np

FPS, FRAMES = 25.0, 15
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=frame\r\n\r\n"


def part(size: tuple[int, int], n: int) -> bytes:
    image = np.full((size[1], size[0], 3), 40 + n % 160, np.uint8)
    cv2.putText(image, str(n), (4, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255))
    data = cv2.imencode(".jpg", image)[1].tobytes()
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    return head + data + b"\r\n"


def serve(client: socket.socket, fault: str) -> None:
    client.recv(4096)
    if fault == "empty":
        return
    client.sendall(HEAD)
    size, due = (160, 120), time.monotonic()
    for n in range(10**9):
        data = part(size, n)
        if n >= FRAMES:
            if fault == "cut":
                client.sendall(data[: len(data) // 2])
                return
            if fault == "corrupt" and n % 2:
                data = data[:120] + os.urandom(len(data) - 122) + data[-2:]
            if fault == "larger":
                size = (240, 180)
            if fault == "stutter" and n % 10 == 0:
                due += 0.4
            if fault == "silent":
                time.sleep(60)
        client.sendall(data)
        due += 1 / FPS
        time.sleep(max(0.0, due - time.monotonic()))


def answer(client: socket.socket, fault: str) -> None:
    with client, suppress(OSError):
        serve(client, fault)


def main() -> None:
    faults = sys.argv[2:]
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        while True:
            client, _ = server.accept()
            fault = faults.pop(0) if len(faults) > 1 else faults[0]
            threading.Thread(target=answer, args=(client, fault), daemon=True).start()


if __name__ == "__main__":
    main()
