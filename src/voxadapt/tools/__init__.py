"""Commands beside the stages: export, evaluate, experiments, plan, doctor, status, notebooks."""
