//! Deliberate defects, chosen by name, that the safety tests must catch. They exist only under the feature `testing`:
//! elsewhere [`mutant!`] is the constant `false`.

/// Whether the deliberate defect of this name is switched on.
macro_rules! mutant {
    ($name:literal) => {{
        #[cfg(feature = "testing")]
        {
            $crate::testing::mutant_is($name)
        }
        #[cfg(not(feature = "testing"))]
        {
            false
        }
    }};
}
