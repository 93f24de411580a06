"""Servers to which more clients come than they have room for."""
