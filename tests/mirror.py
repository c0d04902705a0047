"""A small COCO 2017 on a server of this machine, which can misbehave as servers and connections do."""

import io
import json
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


def coco_archives(counts=None):
    """The bytes of each archive by its path on the server: `counts` pictures of noise in each split."""
    counts = counts or {"val2017": 2, "train2017": 6}
    generator = np.random.default_rng(0)
    annotations, archives = {}, {}
    for split, count in counts.items():
        pictures = {}
        for number in range(count):
            pixels = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            pictures[f"{split}/{number:012d}.jpg"] = cv2.imencode(".jpg", pixels)[1].tobytes()
        images = [
            {"id": n, "file_name": name.split("/")[1], "width": 64, "height": 48} for n, name in enumerate(pictures)
        ]
        objects = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}]
        content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
        annotations[f"annotations/instances_{split}.json"] = json.dumps(content).encode()
        archives[f"/zips/{split}.zip"] = zipped(pictures)
    return archives | {"/annotations/annotations_trainval2017.zip": zipped(annotations)}


def zipped(files):
    """The bytes of a zip that holds `files`, name -> bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Mirror:
    """A server's files and manners; `requests` holds (method, path, Range or None, status) of each request."""

    def __init__(self, files):
        self.files, self.requests = files, []
        self.ranges = True  # answer to Range
        self.cut_after = None  # bytes after which a connection is closed
        self.tag = '"1"'
        self.url = None


@contextmanager
def served(files):
    """A `Mirror` of `files` (path -> bytes) that answers on 127.0.0.1 within the block."""
    mirror = Mirror(files)
    handler = type("Handler", (_Handler,), {"mirror": mirror})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    mirror = None

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *_):
        """Nothing: the test's output stays clean."""

    def _answer(self, body):
        content, wanted = self.mirror.files.get(self.path), self.headers.get("Range")
        begin = 0
        if wanted and self.mirror.ranges and self.headers.get("If-Range", self.mirror.tag) == self.mirror.tag:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        status = 404 if content is None else 416 if begin >= len(content) else 206 if begin else 200
        self.mirror.requests.append((self.command, self.path, wanted, status))
        self.send_response(status)
        if status in (404, 416):
            self.end_headers()
            return
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", self.mirror.tag)
        self.end_headers()
        if body:
            self.wfile.write(content[begin:][: self.mirror.cut_after])
            self.close_connection = True
