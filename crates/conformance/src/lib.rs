//! What every store must do: an independent model of the rules, and one suite that each store runs.
