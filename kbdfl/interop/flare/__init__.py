"""kbdfl as a job of NVIDIA FLARE (https://nvflare.readthedocs.io): the eight-organisation experiment in its simulator.

`silos` what an organisation has in its own folder; `site` its side, a script of FLARE's client API; `server` the
rounds, on FLARE's FedAvg; `job` both as a job, and the table that comes of it. Needs the extra `flare`.
"""
