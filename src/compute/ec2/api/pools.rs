//! Which subnets a request names: the one with the most free addresses in each zone. Pure.
//!
//! One type in two subnets of one zone makes EC2 refuse the whole request (`InvalidFleetConfig`), and a subnet without free
//! addresses cannot take an instance.

use serde::{Deserialize, Serialize};

use crate::machine::instance::Subnet;

/// What EC2 says of a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Its id.
    pub(super) id: String,
    /// Its zone.
    pub(super) zone: String,
    /// How many more interfaces it can take.
    pub(super) free: i32,
}

/// Returns the subnets to name, in the order in which the file names them; none where no subnet has a free address.
#[must_use]
pub(super) fn choose(named: &[Subnet], known: &[Known]) -> Vec<Subnet> {
    let of = |id: &str| known.iter().find(|k| k.id == id);
    let best = |zone: &str| {
        let same = named.iter().filter_map(|s| of(&s.id));
        // Of two with as many the first, as the file has it.
        same.filter(|k| k.zone == zone)
            .reduce(|best, next| if next.free > best.free { next } else { best })
    };
    let mut chosen = Vec::new();
    for subnet in named {
        match of(&subnet.id) {
            // EC2 would have said so if it did not exist: it is AWS's turn to say what is wrong with it.
            None => chosen.push(subnet.clone()),
            Some(k) if k.free > 0 && best(&k.zone).is_some_and(|b| b.id == k.id) => {
                chosen.push(Subnet {
                    id: k.id.clone(),
                    zone: Some(k.zone.clone()),
                });
            }
            Some(_) => {}
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: &str, zone: &str, free: i32) -> Known {
        Known {
            id: id.into(),
            zone: zone.into(),
            free,
        }
    }

    fn chosen(known: &[Known]) -> Vec<String> {
        let named: Vec<Subnet> = ["a1", "a2", "b1", "b2"]
            .iter()
            .map(|id| Subnet {
                id: (*id).into(),
                zone: None,
            })
            .collect();
        choose(&named, known).into_iter().map(|s| s.id).collect()
    }

    #[test]
    fn each_zone_has_the_subnet_with_the_most_free_addresses() {
        let all = |a1, a2, b1, b2| {
            chosen(&[
                known("a1", "a", a1),
                known("a2", "a", a2),
                known("b1", "b", b1),
                known("b2", "b", b2),
            ])
        };
        assert_eq!(all(5, 9, 7, 7), ["a2", "b1"]);
        assert_eq!(all(9, 5, 0, 1), ["a1", "b2"]);
        assert_eq!(all(0, 0, 3, 0), ["b1"]);
        assert_eq!(all(0, 0, 0, 0), [""; 0]);
    }

    #[test]
    fn what_is_not_known_is_left_to_aws() {
        assert_eq!(chosen(&[]), ["a1", "a2", "b1", "b2"]);
        assert_eq!(
            chosen(&[known("a1", "a", 1), known("a2", "a", 2)]),
            ["a2", "b1", "b2"]
        );
    }
}
