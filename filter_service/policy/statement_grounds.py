"""The vocabulary of the DSA Transparency Database (version 2), as policies spell it.

A policy says `violence`, the database `STATEMENT_CATEGORY_VIOLENCE`: every word knows both.
"""

from enum import StrEnum, auto


class CodedWord(StrEnum):
    """A word with its code; lower case in policies."""

    @property
    def code(self) -> str:
        """As the database spells it."""
        return f"{_PREFIXES[type(self).__name__]}_{self.name}"

    @classmethod
    def codes(cls) -> frozenset[str]:
        return frozenset(word.code for word in cls)


class Category(CodedWord):
    """What kind of infringement it is."""

    ANIMAL_WELFARE = auto()
    CONSUMER_INFORMATION = auto()
    CYBER_VIOLENCE = auto()
    CYBER_VIOLENCE_AGAINST_WOMEN = auto()
    DATA_PROTECTION_AND_PRIVACY_VIOLATIONS = auto()
    ILLEGAL_OR_HARMFUL_SPEECH = auto()
    INTELLECTUAL_PROPERTY_INFRINGEMENTS = auto()
    NEGATIVE_EFFECTS_ON_CIVIC_DISCOURSE_OR_ELECTIONS = auto()
    NOT_SPECIFIED_NOTICE = auto()
    OTHER_VIOLATION_TC = auto()
    PROTECTION_OF_MINORS = auto()
    RISK_FOR_PUBLIC_SECURITY = auto()
    SCAMS_AND_FRAUD = auto()
    SELF_HARM = auto()
    UNSAFE_AND_PROHIBITED_PRODUCTS = auto()
    VIOLENCE = auto()


class Visibility(CodedWord):
    """What happened to the picture."""

    CONTENT_REMOVED = "removed"
    CONTENT_DISABLED = "disabled"
    CONTENT_DEMOTED = "demoted"
    CONTENT_AGE_RESTRICTED = "age_restricted"
    CONTENT_INTERACTION_RESTRICTED = "interaction_restricted"
    CONTENT_LABELLED = "labelled"
    OTHER = "other"


class Monetary(CodedWord):
    """What happened to payments."""

    SUSPENSION = auto()
    TERMINATION = auto()
    OTHER = auto()


class Provision(CodedWord):
    """What happened to the service for its user."""

    PARTIAL_SUSPENSION = auto()
    TOTAL_SUSPENSION = auto()
    PARTIAL_TERMINATION = auto()
    TOTAL_TERMINATION = auto()


class Account(CodedWord):
    """What happened to the user's account."""

    SUSPENDED = auto()
    TERMINATED = auto()


class Ground(CodedWord):
    """Against what it is: the law, or the platform's own rules."""

    ILLEGAL_CONTENT = "illegal"
    INCOMPATIBLE_CONTENT = "incompatible"


class NoticeSource(CodedWord):
    """Who pointed at the picture."""

    SOURCE_ARTICLE_16 = "article_16"
    SOURCE_TRUSTED_FLAGGER = "trusted_flagger"
    SOURCE_TYPE_OTHER_NOTIFICATION = "other_notification"
    SOURCE_VOLUNTARY = "voluntary"

    @property
    def code(self) -> str:
        return self.name


class Automation(CodedWord):
    """How much of the decision was a machine's."""

    FULLY = auto()
    PARTIALLY = auto()
    NOT_AUTOMATED = auto()


_PREFIXES = {
    "Category": "STATEMENT_CATEGORY",
    "Visibility": "DECISION_VISIBILITY",
    "Monetary": "DECISION_MONETARY",
    "Provision": "DECISION_PROVISION",
    "Account": "DECISION_ACCOUNT",
    "Ground": "DECISION_GROUND",
    "Automation": "AUTOMATED_DECISION",
}

KEYWORDS: dict[Category, frozenset[str]] = {
    category: frozenset([*words.split(), "other"])
    for category, words in {
        Category.ANIMAL_WELFARE: "animal_harm unlawful_sale_animals",
        Category.CONSUMER_INFORMATION: "hidden_advertisement insufficient_information_on_traders "
        "misleading_info_goods_services misleading_info_consumer_rights noncompliance_pricing",
        Category.CYBER_VIOLENCE: "cyber_bullying_intimidation cyber_harassment cyber_incitement "
        "cyber_stalking non_consensual_image_sharing non_consensual_material_deepfake stalking",
        Category.CYBER_VIOLENCE_AGAINST_WOMEN: "bullying_against_girls "
        "cyber_harassment_against_women cyber_stalking_against_women "
        "female_gendered_disinformation incitement_against_women "
        "non_consensual_image_sharing_against_women "
        "non_consensual_material_deepfake_against_women",
        Category.DATA_PROTECTION_AND_PRIVACY_VIOLATIONS: "biometric_data_breach "
        "data_falsification missing_processing_ground right_to_be_forgotten",
        Category.ILLEGAL_OR_HARMFUL_SPEECH: "defamation discrimination hate_speech",
        Category.INTELLECTUAL_PROPERTY_INFRINGEMENTS: "copyright_infringement "
        "design_infringement geographic_indications_infringement patent_infringement "
        "trade_secret_infringement trademark_infringement",
        Category.NEGATIVE_EFFECTS_ON_CIVIC_DISCOURSE_OR_ELECTIONS: "violation_eu_law "
        "misinformation_disinformation violation_national_law",
        Category.NOT_SPECIFIED_NOTICE: "",
        Category.OTHER_VIOLATION_TC: "adult_sexual_material age_specific_restrictions "
        "geographical_requirements goods_services_not_permitted language_requirements nudity",
        Category.PROTECTION_OF_MINORS: "age_specific_restrictions_minors "
        "child_sexual_abuse_material child_sexual_abuse_material_deepfake "
        "grooming_sexual_enticement_minors unsafe_challenges",
        Category.RISK_FOR_PUBLIC_SECURITY: "illegal_organizations risk_environmental_damage "
        "risk_public_health terrorist_content",
        Category.SCAMS_AND_FRAUD: "impersonation_account_hijacking inauthentic_accounts "
        "inauthentic_listings inauthentic_user_reviews phishing pyramid_schemes",
        Category.SELF_HARM: "content_promoting_eating_disorders self_mutilation suicide",
        Category.UNSAFE_AND_PROHIBITED_PRODUCTS: "prohibited_products unsafe_products",
        Category.VIOLENCE: "coordinated_harm incitement_violence_hatred human_exploitation "
        "human_trafficking trafficking_women_girls",
    }.items()
}
EVERY_KEYWORD = sorted(frozenset().union(*KEYWORDS.values()))

_MEMBERS = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
EU = tuple(_MEMBERS.split())
EEA = tuple(sorted([*EU, "IS", "LI", "NO"]))


def keyword_code(keyword: str) -> str:
    """As the database spells it."""
    return f"KEYWORD_{keyword.upper()}"
