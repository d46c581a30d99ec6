use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// What was made at a cost, of one kind or another, by what it was made with.
///
/// Who owns it says how long everything in it is kept; what is kept, and by what key, is known to those alone who
/// make it.
#[derive(Default)]
pub(crate) struct Cache(RefCell<Vec<Entry>>);

/// A key, and an [`Arc`] of what was made with it.
type Entry = (Box<dyn Any>, Box<dyn Any>);

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache")
            .field(&self.0.borrow().len())
            .finish()
    }
}

impl Cache {
    fn get<K: PartialEq + 'static, V: 'static>(&self, key: &K) -> Option<Arc<V>> {
        let kept = self.0.borrow();
        let found = kept
            .iter()
            .find(|(made_with, _)| made_with.downcast_ref() == Some(key));
        found.and_then(|(_, made)| made.downcast_ref::<Arc<V>>().cloned())
    }

    /// What was made with each of `keys`: what is kept, and else what `make` returns for all that are missing, in
    /// their order, which is kept then.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn all<K: PartialEq + Clone + 'static, V: 'static, E>(
        &self,
        keys: &[K],
        make: impl FnOnce(&[K]) -> Result<Vec<V>, E>,
    ) -> Result<Vec<Arc<V>>, E> {
        let missing = keys.iter().filter(|key| self.get::<K, V>(key).is_none());
        let missing: Vec<K> = missing.cloned().collect();
        for (key, made) in missing.clone().into_iter().zip(make(&missing)?) {
            let entry: Entry = (Box::new(key), Box::new(Arc::new(made)));
            self.0.borrow_mut().push(entry);
        }
        Ok(keys.iter().filter_map(|key| self.get(key)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_not_made_again() {
        let cache = Cache::default();
        let make = |asked: &[u8], made: &[&str]| {
            let found = cache.all(asked, |missing| {
                assert_eq!(missing.len(), made.len());
                Ok::<_, ()>(
                    missing
                        .iter()
                        .map(|key| format!("{key}"))
                        .collect::<Vec<_>>(),
                )
            });
            found
                .unwrap()
                .iter()
                .map(|made| made.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(make(&[1, 2], &["1", "2"]), ["1", "2"]);
        assert_eq!(make(&[2, 3, 1], &["3"]), ["2", "3", "1"]);
        // Keys of one kind are none of another.
        let other = cache.all(&[1u16], |missing| Ok::<_, ()>(vec![missing.len()]));
        assert_eq!(*other.unwrap()[0], 1);
        assert_eq!(
            cache.all::<u8, String, &str>(&[9], |_| Err("failed")),
            Err("failed")
        );
    }
}
