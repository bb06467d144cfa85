"""A server over sentence-transformers on torch, for bench/embeddings.ts: PORT FOLDER THREADS [reranker]."""

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

port, folder, threads = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)
is_reranker = len(sys.argv) > 4
model = CrossEncoder(folder, device="cpu") if is_reranker else SentenceTransformer(folder, device="cpu")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if is_reranker:
            pairs = [(body["query"], document) for document in body["documents"]]
            return self.answer({"results": model.predict(pairs, show_progress_bar=False).tolist()})
        rows = model.encode(body["input"], show_progress_bar=False)
        self.answer({"data": [{"embedding": base64.b64encode(row.tobytes()).decode()} for row in rows]})

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", port), Handler).serve_forever()
