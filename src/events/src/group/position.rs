//! Where a durable group is, as a row.
//!
//! Instead of the offsets that are done, the row has those that are not: the events below `next`
//! that were handed out and not answered. There are never many of them, however far an event that
//! nobody can handle stays behind the others.

use prost::Message as _;

/// The first byte of a row.
const VERSION: u8 = 1;

/// Where a group is: everything below `next` is done, except `open`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The first event that was never handed out.
    pub(crate) next: u64,
    /// Events below it that are not done, in order, each with the number of its deliveries.
    pub(crate) open: Vec<(u64, u32)>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(uint64, tag = "1")]
    next: u64,
    /// The distance of each open event from the one before it.
    #[prost(uint64, repeated, tag = "2")]
    open: Vec<u64>,
    #[prost(uint32, repeated, tag = "3")]
    deliveries: Vec<u32>,
}

impl Position {
    pub(crate) fn at(next: u64) -> Self {
        Self {
            next,
            open: Vec::new(),
        }
    }

    /// Every event below this is done.
    pub(crate) fn floor(&self) -> u64 {
        self.open.first().map_or(self.next, |(offset, _)| *offset)
    }

    /// How many events are not done when the topic's next one is `next`.
    pub(crate) fn lag(&self, next: u64) -> u64 {
        next.saturating_sub(self.next)
            .saturating_add(self.open.len() as u64)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut before = 0;
        let row = Row {
            next: self.next,
            open: self
                .open
                .iter()
                .map(|(offset, _)| offset - std::mem::replace(&mut before, *offset))
                .collect(),
            deliveries: self.open.iter().map(|(_, count)| *count).collect(),
        };
        let mut bytes = Vec::with_capacity(row.encoded_len() + 1);
        bytes.push(VERSION);
        row.encode_raw(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let rest = match bytes.split_first() {
            Some((&VERSION, rest)) => rest,
            Some((other, _)) => return Err(format!("its format {other} is unknown")),
            None => return Err("it is empty".into()),
        };
        let row = Row::decode(rest).map_err(|error| error.to_string())?;
        if row.open.len() != row.deliveries.len() {
            return Err("its lists differ in length".into());
        }
        let mut offset = 0u64;
        let mut open = Vec::with_capacity(row.open.len());
        for (at, (step, deliveries)) in row.open.into_iter().zip(row.deliveries).enumerate() {
            offset = offset
                .checked_add(step)
                .filter(|offset| *offset < row.next && (step > 0 || at == 0))
                .ok_or("its open events are not in order")?;
            open.push((offset, deliveries));
        }
        Ok(Self {
            next: row.next,
            open,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            open in proptest::collection::btree_map(any::<u32>(), any::<u32>(), 0..50),
            beyond in any::<u32>(),
        ) {
            let open: Vec<(u64, u32)> = open.into_iter().map(|(o, d)| (u64::from(o), d)).collect();
            let next = open.last().map_or(0, |(o, _)| o + 1) + u64::from(beyond);
            let position = Position { next, open };
            prop_assert_eq!(Position::decode(&position.encode()).unwrap(), position);
        }

        #[test]
        fn any_bytes_are_an_error_or_a_position_in_order(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(position) = Position::decode(&bytes) {
                let offsets: Vec<u64> = position.open.iter().map(|(o, _)| *o).collect();
                prop_assert!(offsets.windows(2).all(|w| w[0] < w[1]));
                prop_assert!(offsets.iter().all(|o| *o < position.next));
            }
        }
    }

    #[test]
    fn a_position_of_a_newer_version_is_refused() {
        let mut bytes = Position::at(5).encode();
        bytes[0] = 2;
        assert!(Position::decode(&bytes).unwrap_err().contains("format 2"));
        assert!(Position::decode(&[]).is_err());
    }

    #[test]
    fn the_lag_counts_what_is_not_done() {
        let position = Position {
            next: 10,
            open: vec![(3, 1), (7, 2)],
        };
        assert_eq!(position.floor(), 3);
        assert_eq!(position.lag(15), 7);
        assert_eq!(Position::at(4).floor(), 4);
    }
}
