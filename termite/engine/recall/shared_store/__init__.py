"""Share results with other users through a server of the Remote Execution API.

* `shared_settings` reads where the store is, whom it trusts and with which keys.
* `writer_keys` makes and reads keys.
* `signatures` signs records, and opens those of trusted writers.
* `shared_records` says what the records are, and which of them may be used here. It is pure.
* `sharing_rights` says which results may leave this machine. It is pure.
* `api_messages` has the messages of the API, and `api_client` makes its calls.
* `circuit_breaker` keeps away from a store that does not answer. It is pure.
* `shared_results` joins them: what is read from the store, and what is written to it.

The room needs the extra `termite[remote-cache]`; its modules import that only when they are used.
Do not touch: nothing from the store counts before a trusted signature was checked, and no content
before its digest was.
"""
