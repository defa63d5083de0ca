//! Package file names: what people call their files, and what they must not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use windlass_packages::name::{Format, PackageId, PackageName};

#[test]
fn file_names_split_into_id_version_and_format() {
    let table = [
        ("shop-web.1.4.0.zip", "shop-web", "1.4.0", Format::Zip),
        ("Acme.Shop.Web.1.0.nupkg", "Acme.Shop.Web", "1.0", Format::Nupkg),
        ("app.1.tar", "app", "1", Format::Tar),
        ("app.1.0.0-beta.2+build.7.tar.gz", "app", "1.0.0-beta.2+build.7", Format::TarGz),
        ("app.2016.01.02.tgz", "app", "2016.01.02", Format::Tgz),
        ("7zip.19.0.zip", "7zip", "19.0", Format::Zip),
        ("lib.7.1.0.0.0.zip", "lib.7", "1.0.0.0", Format::Zip),
        ("Foo.3.Bar.1.0.zip", "Foo.3.Bar", "1.0", Format::Zip),
        ("app-1.0.zip", "app-1", "0", Format::Zip),
        ("web2.5.zip", "web2", "5", Format::Zip),
        ("a_b-c.d.1.2.3.4.ZIP", "a_b-c.d", "1.2.3.4", Format::Zip),
        ("log4j.1.2-rc.1.Tar.Gz", "log4j", "1.2-rc.1", Format::TarGz),
    ];
    for (file, id, version, format) in table {
        let name: PackageName = file.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(name.id.as_str(), id, "{file}");
        assert_eq!(name.version.as_str(), version, "{file}");
        assert_eq!(name.format, format, "{file}");
        assert_eq!(name.to_string().to_lowercase(), file.to_lowercase());
        assert_eq!(PackageName::new(id, version, format).unwrap(), name);
    }
}

#[test]
fn what_names_no_package_is_refused_with_the_way_to_name_it() {
    let bad = [
        "app.1.0.rar",
        "app.zip",
        "1.0.zip",
        ".1.0.zip",
        "app..1.0.zip",
        "-app.1.0.zip",
        "folder/app.1.0.zip",
        "..\\app.1.0.zip",
        "äpp.1.0.zip",
        "app .1.0.zip",
        "",
        ".zip",
        "é.gz",
    ];
    let texts: Vec<_> = bad
        .iter()
        .map(|text| text.parse::<PackageName>().unwrap_err())
        .map(|error| format!("{error}; {}", error.fix()))
        .collect();
    insta::assert_snapshot!(texts.join("\n"));
    assert!("x".repeat(101).parse::<PackageId>().is_err());
}

#[test]
fn ids_differ_by_more_than_case() {
    let id = |text: &str| text.parse::<PackageId>().unwrap();
    assert_eq!(id("Shop.Web"), id("shop.web"));
    assert_ne!(id("shop.web"), id("shop-web"));
    assert_eq!(id("Shop.Web").to_string(), "Shop.Web");
}
