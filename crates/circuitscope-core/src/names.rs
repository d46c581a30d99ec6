/// Names of an enum whose variants are a closed list: `ALL`, `name`, `Display` by name, and `FromStr` where it is
/// said what a string that is none of them lacks.
///
/// ```
/// # /// Sizes.
/// #[derive(Debug, Clone, Copy, PartialEq)]
/// pub enum Size {
/// #   /// Small.
///     Small,
/// #   /// Large.
///     Large,
/// }
/// circuitscope_core::names!(pub Size: "size" { Small => "small", Large => "large" });
///
/// assert_eq!(Size::ALL, [Size::Small, Size::Large]);
/// assert_eq!("small".parse(), Ok(Size::Small));
/// assert_eq!(format!("{:>6}", Size::Large), " large");
/// assert_eq!(
///     "lage".parse::<Size>().unwrap_err().to_string(),
///     "unknown size `lage` (did you mean `large`?): expected small, large"
/// );
/// ```
///
/// `names!(pub Size { … } or "a size", "small or large")` gives a [`ParseError`](crate::ParseError) instead, and
/// `names!(pub Size { … })` no `FromStr`.
#[macro_export]
macro_rules! names {
    ($vis:vis $type:ident { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            /// All of them.
            $vis const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Its name on the command line and in files.
            #[must_use]
            $vis const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl ::core::fmt::Display for $type {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.pad(self.name())
            }
        }
    };
    ($vis:vis $type:ident: $what:literal $names:tt) => {
        $crate::names!($vis $type $names);

        impl ::core::str::FromStr for $type {
            type Err = $crate::UnknownName;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.into_iter().find(|one| one.name() == s);
                found.ok_or_else(|| $crate::UnknownName {
                    what: $what,
                    name: s.to_owned(),
                    nearest: $crate::nearest(s, Self::ALL.map(Self::name)),
                    known: Self::ALL.map(Self::name).join(", "),
                })
            }
        }
    };
    ($vis:vis $type:ident $names:tt or $what:literal, $expected:literal) => {
        $crate::names!($vis $type $names);

        impl ::core::str::FromStr for $type {
            type Err = $crate::ParseError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.into_iter().find(|one| one.name() == s);
                found.ok_or_else(|| $crate::ParseError {
                    what: $what,
                    found: s.to_owned(),
                    expected: $expected,
                })
            }
        }
    };
}
