"""DAGs to copy into a DAGs folder; the tests run them."""
