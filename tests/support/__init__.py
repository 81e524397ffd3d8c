"""Helpers that the tests of several rooms share: servers, stores, proxies, images."""
