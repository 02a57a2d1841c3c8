"""A board's settings, all in one place."""

SETTINGS = {
    "host": "192.0.2.10",  # the gateway's address
    "port": 1883,
    "ca": None,  # TLS: a file with the CA's certificate in DER; the port is 8883 then
    "server": "gateway.example",  # the name in the gateway's certificate (TLS only)
    "gateway": "site/gateway",
    "device": "press-7",
    "user": None,
    "password": None,
    "will": None,  # a topic of yours, not below tg/
    "text": "turn off the lights in the packing hall",
    "task": None,  # else the gateway's default task
    "id": None,  # else of boot number and counter
    "encoding": "cbor",  # or "json"
    "deadline_ms": 30000,
    "grace_ms": 2000,  # longest wait beyond it: the gateway decides, and its word needs a moment to arrive
    "max_tokens": 0,
    "keep_alive_s": 30,
    "attempts": 5,
    "buffer": 4096,  # largest packet that is taken, in bytes
    "stream": False,
    "local": False,
    "bare": False,  # plain text both ways: no id, so a repetition is a new prompt
}
