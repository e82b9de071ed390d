//! Images: shown, loaded, copied.

use feather_proto::{
    error::{Error, reason},
    pb::{
        controller::v1::{self as pb, sync_image_response::Event},
        types::v1::Image,
    },
};
use insta::assert_snapshot;

use crate::controller::{Act, Controller};

fn image(reference: &str, digit: &str) -> Image {
    Image { reference: reference.into(), digest: format!("sha256:{}", digit.repeat(64)), size_bytes: 3 << 20 }
}

fn work() -> Image {
    image("localhost/feather-work:latest", "5")
}

#[tokio::test]
async fn the_list_says_which_image_new_tenants_get() {
    let controller = Controller::start().await;
    let of =
        |server: &str, image: Image, work: bool| pb::ServerImage { server: server.into(), image: Some(image), work };
    let answer = pb::ListImagesResponse {
        images: vec![of("fra", work(), true), of("nyc", image("", "4"), false), of("nyc", work(), true)],
        unreachable_servers: vec!["sin".into()],
    };
    controller.answers("ListImages", answer.clone()).answers("ListImages", answer);
    assert_snapshot!(controller.run("image list").await, @r"
    --- stdout
    SERVER  IMAGE                          DIGEST               SIZE     USE
    fra     localhost/feather-work:latest  sha256:555555555555  3.0 MiB  work
    nyc     -                              sha256:444444444444  3.0 MiB  -
    nyc     localhost/feather-work:latest  sha256:555555555555  3.0 MiB  work
    --- stderr
    sin does not answer: its images are missing from this list
    --- exit 0
    ");
    assert_snapshot!(controller.run("image list --output json --server nyc").await, @r#"
    --- stdout
    {
      "images": [
        {
          "server": "fra",
          "reference": "localhost/feather-work:latest",
          "digest": "sha256:5555555555555555555555555555555555555555555555555555555555555555",
          "size_bytes": 3145728,
          "work": true
        },
        {
          "server": "nyc",
          "reference": null,
          "digest": "sha256:4444444444444444444444444444444444444444444444444444444444444444",
          "size_bytes": 3145728,
          "work": false
        },
        {
          "server": "nyc",
          "reference": "localhost/feather-work:latest",
          "digest": "sha256:5555555555555555555555555555555555555555555555555555555555555555",
          "size_bytes": 3145728,
          "work": true
        }
      ],
      "unreachable_servers": [
        "sin"
      ]
    }
    --- exit 0
    "#);
}

#[tokio::test]
async fn an_archive_is_sent_whole_and_its_image_named() {
    let controller = Controller::start().await;
    for _ in 0..3 {
        controller.answers("LoadImage", pb::LoadImageResponse { images: vec![work()] });
    }
    let archive = vec![7; 1_200_000];
    std::fs::write(controller.file("work.tar"), &archive).unwrap();
    assert_snapshot!(controller.run("image load nyc HOME/work.tar").await, @r"
    --- stdout
    localhost/feather-work:latest sha256:5555555555555555555555555555555555555555555555555555555555555555 3.0 MiB
    --- stderr
    tenants that are on nyc keep the image they have; `featherctl image list` shows what new ones get
    --- exit 0
    ");
    assert_snapshot!(controller.run_with_input("image load nyc - --yes --output json", &archive).await, @r#"
    --- stdout
    {
      "server": "nyc",
      "images": [
        {
          "reference": "localhost/feather-work:latest",
          "digest": "sha256:5555555555555555555555555555555555555555555555555555555555555555",
          "size_bytes": 3145728
        }
      ]
    }
    --- exit 0
    "#);
    assert_snapshot!(controller.calls(), @r"
    LoadImage: nyc, 1200000 bytes of 1200000, whole: true
    LoadImage: nyc, 1200000 bytes of 0, whole: true
    ");
}

#[tokio::test]
async fn a_refused_archive_says_that_nothing_was_changed() {
    let controller = Controller::start().await;
    std::fs::write(controller.file("work.tar"), "no archive").unwrap();
    let bad = "this is no archive of an image that can be loaded: it is cut off; make one with `podman save --output FILE IMAGE`";
    controller.refuses("LoadImage", Error::invalid(reason::BAD_STREAM, bad));
    assert_snapshot!(controller.run("image load nyc HOME/work.tar").await, @r"
    --- stderr
    error: this is no archive of an image that can be loaded: it is cut off; make one with `podman save --output FILE IMAGE`
    next: the images on nyc are as they were; look at the archive, then load again
    --- exit 2
    ");
    let foreign = "the image localhost/feather-work:latest was built for arm64, and this server is amd64";
    controller.refuses("LoadImage", Error::refused(reason::WRONG_ARCHITECTURE, foreign));
    assert_snapshot!(controller.run("image load nyc HOME/work.tar").await, @r"
    --- stderr
    error: the image localhost/feather-work:latest was built for arm64, and this server is amd64
    next: nothing was changed; `featherctl image list` shows what each server has
    --- exit 1
    ");
    std::fs::write(controller.file("work.tar.gz"), [0x1f, 0x8b, 8]).unwrap();
    assert_snapshot!(controller.run("image load nyc HOME/work.tar.gz").await, @r"
    --- stderr
    error: HOME/work.tar.gz is compressed
    next: decompress it on its way: zcat HOME/work.tar.gz | featherctl image load nyc -
    --- exit 2
    ");
    assert_snapshot!(controller.run("image load nyc HOME/absent.tar").await, @r"
    --- stderr
    error: cannot read HOME/absent.tar: No such file or directory (os error 2)
    next: check the name of the archive
    --- exit 1
    ");
}

#[tokio::test]
async fn a_copy_names_the_image_and_says_whether_it_was_there() {
    let controller = Controller::start().await;
    let progress = |bytes| {
        let event = Event::Progress(pb::SyncImageProgress { bytes, total_bytes: 4 << 20 });
        Act::Send(pb::SyncImageResponse { event: Some(event) })
    };
    let done = |present| {
        let event = Event::Done(pb::SyncImageDone { image: Some(work()), present });
        Act::Send(pb::SyncImageResponse { event: Some(event) })
    };
    controller.answers("SyncImage", vec![progress(1 << 20), progress(3 << 20), done(false)]);
    assert_snapshot!(controller.run("image sync --from nyc --to fra").await, @r"
    --- stdout
    localhost/feather-work:latest sha256:5555555555555555555555555555555555555555555555555555555555555555 3.0 MiB
    --- stderr
      1.0 MiB of 4.0 MiB sent
      3.0 MiB of 4.0 MiB sent
    fra has it now, with the same digest as nyc
    --- exit 0
    ");
    controller.answers("SyncImage", vec![done(true)]);
    assert_snapshot!(controller.run("image sync --from nyc --to fra --output json").await, @r#"
    --- stdout
    {
      "from": "nyc",
      "to": "fra",
      "present": true,
      "image": {
        "reference": "localhost/feather-work:latest",
        "digest": "sha256:5555555555555555555555555555555555555555555555555555555555555555",
        "size_bytes": 3145728
      }
    }
    --- exit 0
    "#);
    controller.answers("SyncImage", vec![progress(1 << 20), Act::Break]);
    let broken = controller.run("image sync --from nyc --to fra").await;
    assert_eq!((broken.code, broken.stdout.as_str()), (Some(3), ""));
    assert_snapshot!(controller.run("image sync --from nyc --to nyc").await, @r"
    --- stderr
    error: nyc cannot be copied to itself
    next: name two servers; `featherctl image list` shows what each of them has
    --- exit 2
    ");
}
