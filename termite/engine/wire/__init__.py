"""Connect daemons securely.

Here live addresses, the cluster's identity and its authority, TLS, and the transport, which
carries requests over one connection; `protocol` decides without waiting.
The room imports `loop` and the floors below. Every daemon and every mirror uses it.
Do not touch: no module here knows what a message means, except Ping and Pong in `transport`.
A mirror must not import `authority`, which takes 9 MB. Reading must never wait for writing.
"""
