//! Tests the archive against a bucket that fails, crashes, answers late and has two writers.
//! Restores are compared with the model at their position.

mod backup;
mod bucket;
mod crashes;
mod damage;
mod moments;
mod pace;
mod packing;
mod planted;
mod pruning;
mod world;
mod writers;
