//! What a pull or push tells while it works.

use hull_image::{Blob, Digest, Part, Reference};

/// Hears of a transfer as it goes on, from several threads.
pub trait Progress: Sync {
    /// A registry is asked for this name.
    fn resolving(&self, name: &Reference);

    /// Another process works on this layer and is waited for.
    fn waiting(&self, digest: &Digest);

    /// The image's layers, lowest first, and those of them that have to be done.
    fn layers(&self, all: &[Blob], wanted: &[Part<'_>]);

    /// So many more bytes of a layer went through.
    fn advance(&self, digest: &Digest, bytes: u64);

    /// A layer is whole, verified and unpacked; or it is at its registry.
    fn done(&self, digest: &Digest);
}

/// What happens to a layer that is pushed.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// It is packed, or looked for at the registry.
    Packing,
    /// So many of so many bytes are sent; the first number may become less when some have to be sent again.
    Sending(u64, u64),
    /// The registry has it already.
    Exists,
    /// The registry took it from another repository.
    Mounted(&'a str),
    /// It is there.
    Sent,
}

/// Hears of a push as it goes on, from several threads.
pub trait PushProgress: Sync {
    /// The layers by their diff ids, lowest first.
    fn layers(&self, all: &[&Digest]);

    /// One of them goes on.
    fn layer(&self, diff_id: &Digest, step: Step<'_>);
}

/// Says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Progress for Quiet {
    fn resolving(&self, _: &Reference) {}
    fn waiting(&self, _: &Digest) {}
    fn layers(&self, _: &[Blob], _: &[Part<'_>]) {}
    fn advance(&self, _: &Digest, _: u64) {}
    fn done(&self, _: &Digest) {}
}

impl PushProgress for Quiet {
    fn layers(&self, _: &[&Digest]) {}
    fn layer(&self, _: &Digest, _: Step<'_>) {}
}
