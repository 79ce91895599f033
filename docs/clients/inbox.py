#!/usr/bin/env python3
"""Prints and acks the messages of a node: inbox.py [HOME [CONSUMER]]. Resumes where it was, also after a kill. A consumer
that does not exist is added, and begins with the oldest message.

HOME is the home of the node, by default that of `dht-node`: $DHT_NODE_HOME, or dht-node in the user's data folder."""
import http.client, json, os, socket, sys, time, urllib.parse

DATA = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
HOME = os.environ.get("DHT_NODE_HOME") or os.path.join(DATA, "dht-node")
HOME = sys.argv[1] if len(sys.argv) > 1 else HOME
PATH = os.path.join(HOME, "api.sock")
CONSUMER = sys.argv[2] if len(sys.argv) > 2 else "default"
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(45)  # the node shows every 15 s that it lives
        self.sock.connect(PATH)
def call(method, path, body=None):
    connection = Unix("localhost")
    connection.request(method, path, body and json.dumps(body))
    response = connection.getresponse()
    if response.status in (408, 429, 503):
        raise http.client.HTTPException(f"{path}: {response.status}")  # may pass: it stops, or has no room for a stream
    if response.status >= 400:
        sys.exit(f"{path}: {json.load(response)['error']['message']}")
    return response

has_answered = False
while True:
    try:
        call("POST", "/v1/inbox/consumers", {"name": CONSUMER}).read()  # changes nothing if there is one
        has_answered = True
        for line in call("GET", "/v1/inbox/stream?" + urllib.parse.urlencode({"consumer": CONSUMER})):
            if line.startswith(b"data: ") and b'"id"' in line:
                message = json.loads(line[6:])
                # The sender chose the text: print it escaped.
                print(message["id"], message.get("from", "anonymous"), ascii(message.get("text")), flush=True)
                call("POST", "/v1/inbox/ack", {"consumer": CONSUMER, "up_to": message["id"]}).read()
    except (OSError, http.client.HTTPException) as error:
        if not has_answered and isinstance(error, (FileNotFoundError, NotADirectoryError, ConnectionRefusedError, PermissionError)):
            sys.exit(f"no node answers at {PATH}: {error.strerror}; start one with: dht-node run --home {HOME}")
        print(f"{PATH}: {error}; tried again", file=sys.stderr)  # the node restarts
    time.sleep(1)
