"""Evidence: what the topology promises, tried with packets and real endpoints on a real kernel."""
