"""Methods: modules that learn on top of frozen features, one folder each; `catalog.METHODS` lists them."""
