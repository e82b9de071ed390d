//! Frames as messages and back.

use feather_proto::pb::agent::v1 as pb;
use proptest::prelude::*;

use super::{
    super::{Error, Frame, Parcel},
    frames_of,
    tree::{build, volume},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_survives_its_message(plant in volume()) {
        let source = tempfile::tempdir().unwrap();
        build(&plant, source.path());
        for frame in frames_of(source.path()) {
            let message = pb::VolumeFrame::from(frame.clone());
            prop_assert_eq!(opened(packed(&message)).unwrap(), frame.clone());
            prop_assert_eq!(Frame::try_from(message).unwrap(), frame);
        }
    }
}

/// As a sender packs it.
fn packed(message: &pb::VolumeFrame) -> pb::VolumeFrame {
    let message = feather_proto::encode(message);
    let (data, size) = (zstd::bulk::compress(&message, 1).unwrap().into(), u32::try_from(message.len()).unwrap());
    pb::VolumeFrame { frame: Some(pb::volume_frame::Frame::Packed(pb::VolumePacked { data, size })) }
}

#[test]
fn a_frame_that_is_packed_twice_is_refused() {
    let trailer = pb::volume_frame::Frame::Trailer(pb::VolumeTrailer::default());
    let twice = packed(&packed(&pb::VolumeFrame { frame: Some(trailer) }));
    assert!(matches!(opened(twice), Err(Error::Malformed { problem: "a frame is packed twice" })));
}

fn opened(message: pb::VolumeFrame) -> Result<Frame, Error> {
    Parcel::try_from(message)?.open()
}

fn refused(frame: pb::volume_frame::Frame) -> &'static str {
    match Frame::try_from(pb::VolumeFrame { frame: Some(frame) }) {
        Err(Error::Malformed { problem }) => problem,
        other => panic!("{other:?}"),
    }
}

fn entry(entry: pb::VolumeEntry) -> &'static str {
    refused(pb::volume_frame::Frame::Batch(pb::VolumeBatch {
        steps: vec![pb::VolumeStep { step: Some(pb::volume_step::Step::Entry(entry)) }],
    }))
}

#[test]
fn a_message_without_a_frame_is_refused() {
    assert!(matches!(Frame::try_from(pb::VolumeFrame { frame: None }), Err(Error::Malformed { .. })));
}

#[test]
fn an_entry_without_a_type_is_refused() {
    assert_eq!(entry(pb::VolumeEntry::default()), "an entry has no type, or an unknown one");
}

#[test]
fn an_entry_without_metadata_is_refused() {
    let node = Some(pb::volume_entry::Node::Fifo(pb::VolumeFifo {}));
    assert_eq!(entry(pb::VolumeEntry { node, ..Default::default() }), "an entry has no metadata");
}

#[test]
fn a_hard_link_with_metadata_is_refused() {
    let node = Some(pb::volume_entry::Node::HardLink(pb::VolumeHardLink { first: 0 }));
    let metadata = Some(pb::VolumeMetadata::default());
    assert_eq!(entry(pb::VolumeEntry { node, metadata, ..Default::default() }), "a hard link has metadata");
}

#[test]
fn a_digest_of_another_length_is_refused() {
    let file = pb::VolumeRegularFile { digest: vec![0; 31].into(), ..Default::default() };
    let node = Some(pb::volume_entry::Node::RegularFile(file));
    let metadata = Some(pb::VolumeMetadata::default());
    let problem = entry(pb::VolumeEntry { node, metadata, ..Default::default() });
    assert_eq!(problem, "a digest does not have 32 bytes");
}

#[test]
fn a_digest_before_the_last_chunk_is_refused() {
    let chunk = pb::VolumeChunk { digest: vec![0; 32].into(), ..Default::default() };
    let problem = refused(pb::volume_frame::Frame::Chunk(chunk));
    assert_eq!(problem, "there is a digest before the end of a file");
}

#[test]
fn a_trailer_without_a_readable_digest_is_refused() {
    let trailer =
        |summary| refused(pb::volume_frame::Frame::Trailer(pb::VolumeTrailer { summary, ..Default::default() }));
    assert_eq!(trailer(None), "the trailer has no summary");
    let problem = trailer(Some(Default::default()));
    assert_eq!(problem, "a root digest is not 64 hexadecimal digits");
}
