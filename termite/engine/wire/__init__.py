"""Connect daemons securely.

* `addresses` parses addresses and connects. `identity` is the cluster's secret, `authority` signs
  certificates, and `owner` keeps the key of a user's masters.
* `tls` encrypts a connection, and `strangers` admits those who have not shown a certificate yet.
* `transport` carries requests over one connection, which `mailboxes` and `silence_watch` serve.
* `line_socket` joins a worker and its mirrors. `wire_calls` has the system calls.
* `protocol` decides without waiting.

The room may import the floors below it. Every daemon and every mirror uses it.
Do not touch: no module here knows what a message means, except Ping and Pong in `transport`.
A mirror must not import `authority`, which takes 9 MB. Reading must never wait for writing.
"""
