"""Human review: cases, decisions, second looks, appeals, similar images and hash lists."""
