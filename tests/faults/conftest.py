"""What the tests of faults share: an S3 server, and a proxy before it that is told what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.s3 import Bucket, moto_bucket
from tests.s3_front import Front, front_of


@pytest.fixture(scope="module")
def s3() -> Iterator[Bucket]:
    with moto_bucket() as running:
        yield running


@pytest.fixture
def front(s3: Bucket) -> Iterator[Front]:
    with front_of(s3) as running:
        yield running
