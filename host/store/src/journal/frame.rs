//! The bytes of a segment: its header, and the frame around each commit.
//!
//! A frame is `magic, length, checksum, sequence, durable, payload`. `durable` is the last commit known to be synced
//! when the frame was written; it is what lets a reader tell a torn tail from damage. Checksums begin with the
//! segment's random salt, so that bytes of another segment (or of a record that quotes a journal) never pass.

use bytes::{Buf, Bytes};

use crate::batch::Op;
use crate::record::{Seq, TableName};

pub(crate) const HEADER_LEN: usize = 32;
pub(crate) const FORMAT: u32 = 1;
const SEGMENT_MAGIC: &[u8; 8] = b"WLJOURNL";
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"\xb5WLf";
const FRAME_HEAD: usize = 28;
/// Above the largest batch with its names and lengths; a longer length is damage.
const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// The start of every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) salt: u32,
    pub(crate) first: Seq,
}

/// Why a header does not pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Newer(u32),
    Damaged,
}

impl Header {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let (head, checksum) =
            bytes.get(..HEADER_LEN).and_then(|h| h.split_at_checked(HEADER_LEN - 4)).ok_or(BadHeader::Damaged)?;
        let mut fields = head.strip_prefix(SEGMENT_MAGIC).ok_or(BadHeader::Damaged)?;
        if crc32c::crc32c(head).to_le_bytes() != checksum {
            return Err(BadHeader::Damaged);
        }
        let format = fields.get_u32_le();
        if format != FORMAT {
            return Err(BadHeader::Newer(format));
        }
        Ok(Self { salt: fields.get_u32_le(), first: Seq(fields.get_u64_le()) })
    }
}

/// A frame that passed its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) seq: Seq,
    pub(crate) durable: Seq,
    /// Where the frame begins and ends in its segment.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Frame {
    /// The commit's changes, sharing the segment's bytes. `None` if a checksummed payload is not understood.
    pub(crate) fn ops(&self, segment: &Bytes) -> Option<Vec<Op>> {
        decode_ops(segment.slice(self.start + FRAME_HEAD..self.end))
    }
}

/// Reads the frame at `start`, if a whole and undamaged one is there.
pub(crate) fn frame_at(segment: &[u8], start: usize, salt: u32) -> Option<Frame> {
    let mut head = segment.get(start..)?.get(..FRAME_HEAD)?.strip_prefix(&FRAME_MAGIC)?;
    let length = usize::try_from(head.get_u32_le()).ok()?;
    let checksum = head.get_u32_le();
    if length > MAX_PAYLOAD {
        return None;
    }
    let end = start + FRAME_HEAD + length;
    let checked = segment.get(start + 12..end)?;
    (frame_checksum(salt, length, checked) == checksum).then(|| Frame {
        seq: Seq(head.get_u64_le()),
        durable: Seq(head.get_u64_le()),
        start,
        end,
    })
}

#[allow(clippy::cast_possible_truncation)] // Lengths are below MAX_PAYLOAD.
fn frame_checksum(salt: u32, length: usize, checked: &[u8]) -> u32 {
    crc32c::crc32c_append(salt ^ (length as u32), checked)
}

/// Appends the frame of one commit to `out`.
#[allow(clippy::cast_possible_truncation)] // A validated batch is far below 4 GiB.
pub(crate) fn encode_frame(out: &mut Vec<u8>, salt: u32, seq: Seq, durable: Seq, ops: &[Op]) {
    let start = out.len();
    out.extend_from_slice(&FRAME_MAGIC);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&seq.0.to_le_bytes());
    out.extend_from_slice(&durable.0.to_le_bytes());
    for op in ops {
        let (table, key) = op.target();
        let kind = u8::from(matches!(op, Op::Put { .. }));
        out.push(kind);
        out.push(table.as_str().len() as u8);
        out.extend_from_slice(table.as_str().as_bytes());
        out.extend_from_slice(&(key.len() as u16).to_le_bytes());
        out.extend_from_slice(key);
        if let Op::Put { value, .. } = op {
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value);
        }
    }
    let length = out.len() - start - FRAME_HEAD;
    let checksum = out.get(start + 12..).map_or(0, |checked| frame_checksum(salt, length, checked));
    if let Some(fields) = out.get_mut(start + 4..start + 12) {
        let (len_field, sum_field) = fields.split_at_mut(4);
        len_field.copy_from_slice(&(length as u32).to_le_bytes());
        sum_field.copy_from_slice(&checksum.to_le_bytes());
    }
}

fn decode_ops(mut payload: Bytes) -> Option<Vec<Op>> {
    let mut ops = Vec::new();
    while payload.has_remaining() {
        let kind = payload.try_get_u8().ok()?;
        let table_len = usize::from(payload.try_get_u8().ok()?);
        let table = take(&mut payload, table_len)?;
        let table = TableName::parse(std::str::from_utf8(&table).ok()?)?;
        let key_len = usize::from(payload.try_get_u16_le().ok()?);
        let key = take(&mut payload, key_len)?;
        ops.push(match kind {
            0 => Op::Delete { table, key },
            1 => {
                let value_len = usize::try_from(payload.try_get_u32_le().ok()?).ok()?;
                Op::Put { table, key, value: take(&mut payload, value_len)? }
            }
            _ => return None,
        });
    }
    Some(ops)
}

fn take(payload: &mut Bytes, length: usize) -> Option<Bytes> {
    (payload.remaining() >= length).then(|| payload.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_ops() -> impl Strategy<Value = Vec<Op>> {
        let op = (
            "[a-z][a-z0-9_-]{0,8}",
            prop::collection::vec(any::<u8>(), 1..40),
            prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        )
            .prop_map(|(table, key, value)| {
                let (table, key) = (TableName::parse(&table).unwrap(), Bytes::from(key));
                match value {
                    Some(value) => Op::Put { table, key, value: value.into() },
                    None => Op::Delete { table, key },
                }
            });
        prop::collection::vec(op, 0..6)
    }

    proptest! {
        #[test]
        fn a_frame_comes_back_and_every_flipped_bit_is_seen(ops in any_ops(), salt: u32, seq: u64, flip: prop::sample::Index) {
            let mut bytes = Vec::new();
            encode_frame(&mut bytes, salt, Seq(seq), Seq(seq / 2), &ops);
            let frame = frame_at(&bytes, 0, salt).unwrap();
            prop_assert_eq!((frame.seq, frame.durable, frame.end), (Seq(seq), Seq(seq / 2), bytes.len()));
            prop_assert_eq!(frame.ops(&bytes.clone().into()), Some(ops));
            prop_assert!(frame_at(&bytes, 0, salt ^ 1).is_none());
            prop_assert!(frame_at(&bytes[..bytes.len() - 1], 0, salt).is_none());
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(frame_at(&bytes, 0, salt).is_none());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::decode(&bytes);
            let _ = frame_at(&bytes, 0, 0);
            let _ = decode_ops(bytes.into());
        }
    }

    #[test]
    fn a_header_comes_back_or_says_why_not() {
        let header = Header { salt: 7, first: Seq(42) };
        let mut bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert_eq!(Header::decode(&bytes[..31]), Err(BadHeader::Damaged));
        bytes[8] = 2;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Damaged));
        let sum = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Newer(2)));
    }
}
