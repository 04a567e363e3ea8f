//! Stories that are told on purpose, step by step, and not by a seed.

use super::{member::Engine, world::World};
use widgets_engine::Role;

/// So many turns of everybody until nobody has anything to do any more.
const TURNS: usize = 60;

impl World {
    /// Everybody goes on, and no time passes.
    fn go_on(&mut self) -> Result<(), String> {
        for _ in 0..TURNS {
            for number in 0..self.members.len() {
                self.turn(number)?;
                self.own(number)?;
                self.arrive()?;
                self.network.carry();
            }
            self.after()?;
        }
        Ok(())
    }

    /// The chain of members, each a standby of the one before, promoted one after the other at the same place: each writes a seal at the same
    /// moment. True where the last one has the highest epoch: then the one before it is told, and follows.
    fn same_seals(&mut self) -> Result<bool, String> {
        self.is_calm = true;
        for number in 0..self.members.len() {
            self.members[number].follows = number.checked_sub(1);
            self.start(number)?;
            for _ in 0..20 {
                self.go_on()?;
                self.pass(100_000);
            }
        }
        let [.., one, other] = (0..self.members.len()).collect::<Vec<_>>()[..] else {
            return Err("there are two at least".into());
        };
        self.network.part(one, other);
        for number in [one, other] {
            self.promote(number);
            self.go_on()?;
        }
        self.pass(2_000_000);
        self.go_on()?;
        let ends = [one, other].map(|number| {
            let source = self.members[number].engine().map(Engine::source)?;
            Some((source.end().chain, source.store().epoch()))
        });
        let [Some((chain, epoch)), Some((other_chain, other_epoch))] = ends else {
            return Err("both have a store".into());
        };
        let is_promoted = |number: usize| {
            let engine = self.members[number].engine();
            engine.is_some_and(|it| matches!(it.source().store().role, Role::Promoted { .. }))
        };
        if chain != other_chain || epoch == other_epoch || !is_promoted(other) {
            return Err("they have not written the same in two epochs".into());
        }
        self.end()?;
        Ok(other_epoch > epoch)
    }
}

#[test]
fn a_primary_that_wrote_the_same_seal_as_the_one_that_replaced_it_follows_that_one() {
    let worlds = (0..12).map(|seed| (seed, World::new(seed, false, false)));
    let worlds = worlds.filter(|(_, world)| world.members.len() == 3);
    let told = worlds.map(|(seed, mut world)| {
        // Their calendars tell the same.
        for member in &mut world.members {
            member.set_on_time();
        }
        world
            .same_seals()
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"))
    });
    let told = told.filter(|is_told| *is_told).count();
    assert!(told > 0, "no seed has the second epoch as the higher one");
}
