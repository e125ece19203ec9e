"""The demo: a simulated provider that speaks each dialect truly, and a small story of calls sent through the proxy."""
