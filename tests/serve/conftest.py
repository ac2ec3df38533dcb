"""What the tests of the server share: one portfolio, and one server with the limits that users get."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prunec.runtime.portfolio import Portfolio

from .serving import DENSE, Running, make_portfolio, running


@pytest.fixture(scope="session")
def one_portfolio(tmp_path_factory: pytest.TempPathFactory) -> Portfolio:
    return make_portfolio(tmp_path_factory.mktemp("portfolio"))


@pytest.fixture
def portfolio(one_portfolio: Portfolio) -> Portfolio:
    """The portfolio of all tests, as it was in the beginning."""
    one_portfolio.switch(DENSE)
    return one_portfolio


@pytest.fixture(scope="session")
def server(one_portfolio: Portfolio) -> Iterator[Running]:
    """For tests that leave it as it is."""
    with running(one_portfolio) as found:
        yield found
