"""Stands in for vLLM: what the tests start with `--backend vllm`; see `entrypoints/openai/api_server.py`."""
