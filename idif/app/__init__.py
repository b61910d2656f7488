"""Web page of a run (extra ``app``): upload photographs, switch cameras off, see scores and maps."""
